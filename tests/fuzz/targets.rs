//! Every parser of outside bytes, by name. Replayed and mutated on stable by `tests/fuzz/replay.rs`; driven by libFuzzer
//! where a nightly toolchain exists (`tests/fuzz/libfuzzer`).

use std::collections::BTreeSet;

use edgeward_agent::state::Origin;
use edgeward_agent::workload::authority_field::soften;
use edgeward_audit::Event;
use edgeward_audit::batch::{Batch, JournalKeyStatement};
use edgeward_audit::checkpoint::Checkpoint;
use edgeward_audit::export::otlp;
use edgeward_audit::log_proof::LogProof;
use edgeward_audit::merkle::Frontier;
use edgeward_audit::note::Note;
use edgeward_audit::proven::Verifier;
use edgeward_audit::query::{CoverageCursor, CursorKey, Query, StatsQuery};
use edgeward_audit::segment::Segment;
use edgeward_audit::statement::{HeadStated, LossStated, Signed};
use edgeward_audit::tiles::Tile;
use edgeward_audit::tlog_policy::TlogPolicy;
use edgeward_audit::witness::parse_size_answer;
use edgeward_ca::keys::pkcs11::TokenUri;
use edgeward_ca::keys::sites::Site;
use edgeward_evidence::EkRoots;
use edgeward_evidence::boot_log::variable::{EfiVariable, Guid};
use edgeward_evidence::boot_log::{self, BootLog, signature_list};
use edgeward_evidence::boot_statement::BootStatement;
use edgeward_evidence::ek::{EkFile, EkLists, Terms, der, verify_ek_certificate};
use edgeward_evidence::testing::BootLogBuilder;
use edgeward_evidence::testing::boot_log::{self as boot_log_made, variable_data};
use edgeward_evidence::tpm::{Attest, HashAlg, Name, PcrBank, Public, Signature};
use edgeward_identity::jwt::{self, JwtBundle};
use edgeward_identity::testing::TEST_NOW;
use edgeward_identity::{Secret, SignedObject, SpiffeId, SvidLeaf, Tier, TrustBundle, TrustDomain};
use edgeward_policy::StatedProfiles;
use edgeward_policy::edit::{Addition, accepts, add_pcr_values};
use edgeward_policy::source::SourceFile;
use edgeward_tunnel::bind::codec;
use edgeward_tunnel::filter::packet;
use edgeward_wire::stun::{self, request, success};
use edgeward_wire::token::BootstrapToken;

use seeds::{
    bundles, checkpoints, journal_statements, jwt_bundles, jwt_seed, jwt_tokens, packets, policies,
};

#[path = "apps.rs"]
mod apps;
#[path = "attestation.rs"]
mod attestation;
#[path = "blocks.rs"]
mod blocks;
#[path = "break_glass.rs"]
mod break_glass;
#[path = "deltas.rs"]
mod deltas;
#[path = "gateway.rs"]
mod gateway;
#[path = "guard.rs"]
mod guard;
#[path = "handover.rs"]
mod handover;
#[path = "journal.rs"]
mod journal;
#[path = "names.rs"]
mod names;
#[path = "policy_texts.rs"]
mod policy_texts;
#[path = "processes.rs"]
mod processes;
#[path = "protocols.rs"]
mod protocols;
#[path = "reach.rs"]
mod reach;
#[path = "seeds.rs"]
mod seeds;
#[path = "translate.rs"]
mod translate;
#[path = "wireguard.rs"]
mod wireguard;
#[path = "witness.rs"]
mod witness;

/// One parser. `run` must neither panic nor allocate by a size field it has not checked.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Well-formed inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them, alphabetically.
pub const TARGETS: &[Target] = &[
    Target {
        name: "agent_act",
        run: break_glass::act,
        seeds: break_glass::acts,
    },
    Target {
        name: "agent_cgroup",
        run: processes::cgroup,
        seeds: processes::cgroups,
    },
    Target {
        name: "agent_handed",
        run: handover::handed,
        seeds: handover::states,
    },
    Target {
        name: "agent_http2_authority",
        run: |bytes| assert_eq!(soften(bytes).len(), bytes.len()),
        seeds: none,
    },
    Target {
        name: "agent_ima_list",
        run: processes::ima_list,
        seeds: attestation::ima_lists,
    },
    Target {
        name: "agent_names",
        run: names::questions,
        seeds: names::asked,
    },
    Target {
        name: "agent_neighbours",
        run: gateway::neighbour_table,
        seeds: gateway::neighbour_tables,
    },
    Target {
        name: "agent_origin",
        run: |bytes| {
            Origin::is_well_formed(bytes);
        },
        seeds: none,
    },
    Target {
        name: "agent_resolv_conf",
        run: names::resolv_conf,
        seeds: names::resolv_confs,
    },
    Target {
        name: "alert_rules",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                drop(edgeward_ca::alerts::Rules::default().read(text));
            }
        },
        seeds: || {
            let defaults = include_bytes!("../../deploy/alerts/defaults.toml");
            vec![defaults.to_vec()]
        },
    },
    Target {
        name: "app_log",
        run: attestation::app_log,
        seeds: attestation::app_logs,
    },
    Target {
        name: "apps_archive",
        run: apps::archive,
        seeds: apps::archives,
    },
    Target {
        name: "apps_cosign",
        run: apps::signatures,
        seeds: apps::bundles,
    },
    Target {
        name: "apps_envelope",
        run: apps::envelope,
        seeds: apps::envelopes,
    },
    Target {
        name: "apps_image",
        run: apps::image,
        seeds: apps::images,
    },
    Target {
        name: "apps_manifest",
        run: apps::manifest,
        seeds: apps::manifests,
    },
    Target {
        name: "apps_metadata",
        run: apps::metadata,
        seeds: apps::metadata_files,
    },
    Target {
        name: "apps_orders",
        run: apps::orders,
        seeds: apps::orders_seeds,
    },
    Target {
        name: "apps_receipt",
        run: apps::receipt,
        seeds: apps::receipts,
    },
    Target {
        name: "apps_rules",
        run: apps::rules,
        seeds: apps::rules_seeds,
    },
    Target {
        name: "apps_said",
        run: apps::said,
        seeds: apps::said_seeds,
    },
    Target {
        name: "apps_stated",
        run: apps::stated,
        seeds: apps::envelopes,
    },
    Target {
        name: "apps_strict_json",
        run: apps::plain,
        seeds: apps::plain_texts,
    },
    Target {
        name: "attestation_result",
        run: attestation::result,
        seeds: attestation::results,
    },
    Target {
        name: "audit_batch",
        run: |bytes| drop(Batch::parse(bytes)),
        seeds: none,
    },
    Target {
        name: "audit_block_bodies",
        run: blocks::bodies,
        seeds: blocks::body_seeds,
    },
    Target {
        name: "audit_block_columns",
        run: blocks::columns,
        seeds: blocks::column_seeds,
    },
    Target {
        name: "audit_block_places",
        run: blocks::places,
        seeds: blocks::place_seeds,
    },
    Target {
        name: "audit_checkpoint",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                drop(Checkpoint::parse_text(text));
            }
        },
        seeds: checkpoints,
    },
    Target {
        name: "audit_cosignature",
        run: witness::cosignature,
        seeds: witness::cosigned,
    },
    Target {
        name: "audit_coverage_cursor",
        run: audit_coverage_cursor,
        seeds: seeds::coverage_cursors,
    },
    Target {
        name: "audit_event",
        run: |bytes| drop(Event::parse(bytes)),
        seeds: none,
    },
    Target {
        name: "audit_export_line",
        run: audit_export,
        seeds: seeds::export_lines,
    },
    Target {
        name: "audit_frontier",
        run: |bytes| drop(Frontier::parse(bytes)),
        seeds: none,
    },
    Target {
        name: "audit_journal_key",
        run: |bytes| drop(JournalKeyStatement::parse(bytes)),
        seeds: none,
    },
    Target {
        name: "audit_log_proof",
        run: |bytes| drop(LogProof::parse(bytes)),
        seeds: seeds::log_proofs,
    },
    Target {
        name: "audit_note",
        run: |bytes| drop(Note::parse(bytes)),
        seeds: checkpoints,
    },
    Target {
        name: "audit_otlp_answer",
        run: |bytes| {
            if let Ok(taken) = otlp::answer(bytes) {
                assert!(i64::try_from(taken.rejected).is_ok() && taken.reason.len() <= 200);
            }
        },
        seeds: || vec![b"\x0a\x07\x08\x03\x12\x03bad".to_vec()],
    },
    Target {
        name: "audit_query",
        run: audit_query,
        seeds: || vec![b"from=2026-01-31T12:00:00Z\nnode=a\ntype=flow.*\nlimit=10".to_vec()],
    },
    Target {
        name: "audit_record",
        run: journal::record,
        seeds: journal::records,
    },
    Target {
        name: "audit_segment",
        run: |bytes| {
            if let Ok(segment) = Segment::parse(bytes) {
                assert!(segment.to_bytes().is_ok_and(|again| again == bytes));
                drop(segment.proof_of(segment.first));
            }
        },
        seeds: seeds::segments,
    },
    Target {
        name: "audit_site",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                // It goes into files of keys as it is.
                let site = Site::parse(text);
                assert!(site.is_none_or(|site| site.as_str() == text && !text.contains('\n')));
            }
        },
        seeds: || vec![b"hall-3/line_2.north".to_vec(), vec![b'a'; 63]],
    },
    Target {
        name: "audit_statement",
        run: |bytes| {
            drop(Signed::<HeadStated>::parse(bytes));
            drop(Signed::<LossStated>::parse(bytes));
        },
        seeds: journal_statements,
    },
    Target {
        name: "audit_stats_query",
        run: audit_stats_query,
        seeds: || {
            vec![
                b"from=2026-01-31T12:00:00Z\nto=2026-01-31T13:00:00Z\nbucket=5m\nby=node\ntop=3"
                    .to_vec(),
            ]
        },
    },
    Target {
        name: "audit_tile",
        run: audit_tile,
        seeds: || {
            [
                "tile/0/x001/234.p/5",
                "tile/entries/000.p/2\n\0\u{1}a\0\u{2}bc",
            ]
            .map(|text| text.as_bytes().to_vec())
            .to_vec()
        },
    },
    Target {
        name: "audit_tlog_policy",
        run: |bytes| drop(TlogPolicy::parse(bytes)),
        seeds: witness::policies,
    },
    Target {
        name: "audit_witness_size",
        run: |bytes| drop(parse_size_answer(bytes)),
        seeds: || vec![b"20852163\n".to_vec()],
    },
    Target {
        name: "audit_witness_submission",
        run: witness::submission,
        seeds: witness::submissions,
    },
    Target {
        name: "bind_message",
        run: |bytes| drop(codec::parse(bytes)),
        seeds: none,
    },
    Target {
        name: "boot_log",
        run: |bytes| {
            if let Ok(log) = BootLog::parse(bytes) {
                drop(log.describe());
                for bank in HashAlg::ALL {
                    drop(log.replay(bank));
                }
            }
        },
        seeds: boot_logs,
    },
    Target {
        name: "boot_log_difference",
        run: boot_log_difference,
        seeds: boot_logs,
    },
    Target {
        name: "boot_log_judge",
        run: boot_log_judge,
        seeds: boot_logs,
    },
    Target {
        name: "boot_statement",
        run: |bytes| drop(BootStatement::parse(bytes)),
        seeds: none,
    },
    Target {
        name: "bootstrap_token",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                drop(BootstrapToken::parse(text));
            }
        },
        seeds: || vec![b"edgeward1.".to_vec()],
    },
    Target {
        name: "break_glass_approval",
        run: break_glass::approval,
        seeds: break_glass::approvals,
    },
    Target {
        name: "break_glass_code",
        run: break_glass::codes,
        seeds: break_glass::typed_codes,
    },
    Target {
        name: "break_glass_file",
        run: break_glass::sealed,
        seeds: break_glass::sealed_files,
    },
    Target {
        name: "break_glass_grant",
        run: break_glass::grant,
        seeds: break_glass::grants,
    },
    Target {
        name: "cloud_token_uri",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                drop(text.parse::<TokenUri>());
            }
        },
        seeds: || {
            vec![b"pkcs11:token=ca;object=edgeward?module-path=/usr/lib/x.so&pin-source=file:/etc/pin".to_vec()]
        },
    },
    Target {
        name: "efi_signature_lists",
        run: |bytes| drop(signature_list::parse(bytes)),
        seeds: signature_lists,
    },
    Target {
        name: "efi_variable",
        run: |bytes| drop(EfiVariable::parse(bytes)),
        seeds: || vec![variable_data(Guid::GLOBAL, "SecureBoot", &[1])],
    },
    Target {
        name: "ek_certificate",
        run: |bytes| {
            let (roots, _) = EkRoots::load(
                &[EkFile {
                    tier: Tier::Virtual,
                    name: "fuzz.pem",
                    bytes,
                    terms: Terms {
                        sets_in_any_order: true,
                        ..Terms::default()
                    },
                }],
                EkLists::default(),
            );
            drop(verify_ek_certificate(&[bytes], bytes, &roots, TEST_NOW));
            let _ = der::trim(bytes);
        },
        seeds: certificates,
    },
    Target {
        name: "ext_authz_question",
        run: protocols::ext_authz,
        seeds: protocols::questions,
    },
    Target {
        name: "filter_moved_flows",
        run: handover::flows,
        seeds: handover::tables,
    },
    Target {
        name: "gateway_modbus",
        run: protocols::modbus,
        seeds: protocols::modbus_frames,
    },
    Target {
        name: "gateway_mqtt_broker",
        run: protocols::mqtt_broker,
        seeds: protocols::mqtt_packets,
    },
    Target {
        name: "gateway_mqtt_client",
        run: protocols::mqtt_client,
        seeds: protocols::mqtt_packets,
    },
    Target {
        name: "guard_book",
        run: guard::book,
        seeds: guard::books,
    },
    Target {
        name: "guard_launch_order",
        run: guard::launch_order,
        seeds: guard::launch_orders,
    },
    Target {
        name: "guard_lines",
        run: guard::lines,
        seeds: guard::all_told,
    },
    Target {
        name: "guard_order",
        run: guard::told_order,
        seeds: guard::books,
    },
    Target {
        name: "ima_ascii",
        run: attestation::ima_ascii,
        seeds: attestation::ima_ascii_lists,
    },
    Target {
        name: "ima_binary",
        run: attestation::ima_binary,
        seeds: attestation::ima_lists,
    },
    Target {
        name: "ip_packet",
        run: |bytes| {
            let _ = packet::parse(bytes);
            let _ = packet::parse_quoted(bytes);
        },
        seeds: packets,
    },
    Target {
        name: "jwt_bundle",
        run: |bytes| {
            if let Ok(domain) = TrustDomain::new("plant.example") {
                drop(JwtBundle::from_jwks(domain, bytes));
            }
        },
        seeds: jwt_bundles,
    },
    Target {
        name: "jwt_svid",
        run: |bytes| {
            if let (Ok(text), Ok(domain)) = (
                std::str::from_utf8(bytes),
                TrustDomain::new("plant.example"),
            ) {
                // Signed by the key of the seed, so that claims are reached, too; and by nobody known.
                for bundle in [JwtBundle::new(domain.clone(), []), jwt_seed().1] {
                    drop(jwt::validate(text, "historian", &bundle, TEST_NOW));
                }
                let _ = jwt::end_of(text);
            }
        },
        seeds: jwt_tokens,
    },
    Target {
        name: "policy_edit",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                let addition = Addition {
                    profile: "simulated".to_owned(),
                    pcr: 4,
                    values: BTreeSet::from([format!("sha256:{}", "ab".repeat(32))]),
                };
                if let Ok(edited) = add_pcr_values("fuzz.toml", text, &[addition]) {
                    // What was a file stays one, and the addition is there.
                    assert!(accepts(&edited.text, "simulated", 4));
                    assert!(edited.text.contains(&"ab".repeat(32)));
                }
            }
        },
        seeds: policies,
    },
    Target {
        name: "policy_file",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                drop(edgeward_policy::check(&[SourceFile::new(
                    "fuzz.toml",
                    text,
                )]));
            }
        },
        seeds: || [policies(), policy_texts::files()].concat(),
    },
    Target {
        name: "policy_http_path",
        run: gateway::path,
        seeds: gateway::paths,
    },
    Target {
        name: "policy_l7",
        run: policy_texts::l7,
        seeds: policy_texts::l7_texts,
    },
    Target {
        name: "policy_list",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                drop(edgeward_policy::check(&[SourceFile::new(
                    "fuzz.allow",
                    text,
                )]));
            }
        },
        seeds: || vec![format!("# a\nsha256:{} /bin/sh\n", "0a".repeat(32)).into_bytes()],
    },
    Target {
        name: "policy_mac",
        run: policy_texts::mac,
        seeds: policy_texts::macs,
    },
    Target {
        name: "policy_profile_label",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                let _ = StatedProfiles::parse(text);
            }
        },
        seeds: || vec![b"a@0123456789abcdef+b@0123456789abcdef".to_vec()],
    },
    Target {
        name: "policy_slice",
        run: policy_texts::slice,
        seeds: policy_texts::slices,
    },
    Target {
        name: "reach_datagram",
        run: reach::datagram,
        seeds: reach::datagrams,
    },
    Target {
        name: "reach_message",
        run: reach::body,
        seeds: reach::bodies,
    },
    Target {
        name: "signed_object",
        run: |bytes| drop(SignedObject::parse(bytes)),
        seeds: || vec![b"EWSO\x01\x02".to_vec()],
    },
    Target {
        name: "slice_delta",
        run: deltas::run,
        seeds: deltas::seeds,
    },
    Target {
        name: "spiffe_id",
        run: |bytes| {
            if let Ok(text) = std::str::from_utf8(bytes) {
                drop(text.parse::<SpiffeId>());
            }
        },
        seeds: || vec![b"spiffe://plant.example/workload/acme/collector".to_vec()],
    },
    Target {
        name: "stun_message",
        run: stun,
        seeds: || {
            let id = [7; 12];
            let at = ["192.0.2.1:9", "[2001:db8::1]:51820"].map(|at| at.parse());
            let answers = at.into_iter().flatten().map(|at| success(&id, at));
            answers.chain([request(&id)]).collect()
        },
    },
    Target {
        name: "svid_leaf",
        run: |bytes| drop(SvidLeaf::parse(bytes)),
        seeds: certificates,
    },
    Target {
        name: "tpm_attest",
        run: |bytes| drop(Attest::parse(bytes)),
        seeds: || vec![b"\xff\x54\x43\x47\x80\x18".to_vec()],
    },
    Target {
        name: "tpm_name",
        run: |bytes| drop(Name::parse(bytes)),
        seeds: || vec![[&[0, 11][..], &[7; 32]].concat()],
    },
    Target {
        name: "tpm_public",
        run: |bytes| drop(Public::parse(bytes)),
        seeds: none,
    },
    Target {
        name: "tpm_signature",
        run: |bytes| drop(Signature::parse(bytes)),
        seeds: none,
    },
    Target {
        name: "translate_packet",
        run: translate::packet,
        seeds: translate::packets,
    },
    Target {
        name: "trust_bundle",
        run: |bytes| {
            if let Ok(domain) = TrustDomain::new("plant.example") {
                drop(TrustBundle::from_spiffe_json(domain, bytes));
            }
        },
        seeds: bundles,
    },
    Target {
        name: "wireguard_cookie",
        run: wireguard::cookie,
        seeds: wireguard::bodies,
    },
    Target {
        name: "wireguard_datagram",
        run: wireguard::datagram,
        seeds: wireguard::messages,
    },
    Target {
        name: "wireguard_initiation",
        run: wireguard::initiation,
        seeds: wireguard::bodies,
    },
    Target {
        name: "wireguard_joined",
        run: wireguard::joined,
        seeds: wireguard::joined_messages,
    },
    Target {
        name: "wireguard_moved_peer",
        run: wireguard::moved_peer,
        seeds: wireguard::moved_peers,
    },
    Target {
        name: "wireguard_response",
        run: wireguard::response,
        seeds: wireguard::bodies,
    },
    Target {
        name: "wireguard_session",
        run: wireguard::session,
        seeds: wireguard::sessions,
    },
];

/// Files of other projects' vectors that are seeds of one target: its name, and a folder of them.
pub const VECTORS: &[(&str, &str)] = &[
    ("boot_log", "uefi-eventlogs/go-eventlog"),
    ("boot_log", "uefi-eventlogs/go-tpm-tools"),
    ("boot_log", "uefi-eventlogs/keylime"),
    ("boot_log", "uefi-eventlogs/tpm2-tools"),
    ("boot_log_difference", "uefi-eventlogs/tpm2-tools"),
    ("boot_log_judge", "uefi-eventlogs/go-eventlog"),
    ("boot_log_judge", "uefi-eventlogs/go-tpm-tools"),
    ("boot_log_judge", "uefi-eventlogs/keylime"),
    ("boot_log_judge", "uefi-eventlogs/tpm2-tools"),
    ("ima_ascii", "ima-logs/keylime"),
    ("ima_ascii", "ima-logs/rust-keylime"),
];

/// An answer is never longer than a request that is answered, and says what it was made from.
fn stun(bytes: &[u8]) {
    match stun::Message::parse(bytes) {
        Ok(stun::Message::Request(id)) => {
            let from = std::net::SocketAddr::from(([192, 0, 2, 1], 9));
            let answer = success(&id, from);
            assert!(answer.len() <= stun::MIN_REQUEST_BYTES);
            assert_eq!(
                stun::Message::parse(&answer),
                Ok(stun::Message::Success(id, from))
            );
        }
        Ok(stun::Message::Success(_, address)) => assert_ne!(address.port(), 0),
        Err(_) => {}
    }
}

/// A log that replays to what was quoted, whatever it says: all that is read from one is read.
fn boot_log_judge(bytes: &[u8]) {
    let Ok(log) = BootLog::parse(bytes) else {
        return;
    };
    for bank in [PcrBank::Sha256, PcrBank::Sha384] {
        let _ = boot_log::judge(&log, bank, &log.replay(bank.hash()));
    }
}

/// Two logs in one input: the first half and the second.
fn boot_log_difference(bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    for (before, after) in [(first, second), (bytes, bytes), (bytes, first)] {
        if let (Ok(before), Ok(after)) = (BootLog::parse(before), BootLog::parse(after)) {
            drop(boot_log::difference(&before, &after));
        }
    }
}

fn boot_logs() -> Vec<Vec<u8>> {
    let one = BootLogBuilder::typical(true).startup_locality(3).build();
    let two = BootLogBuilder::typical_in(&[HashAlg::Sha1, HashAlg::Sha384], false).build();
    let old = BootLogBuilder::typical_in(&[], true).build();
    let pair = [one.as_slice(), &one].concat();
    vec![one, two, old, pair]
}

fn signature_lists() -> Vec<Vec<u8>> {
    use signature_list::{CERT_SHA256, CERT_X509};
    let certificates = boot_log_made::signature_list(CERT_X509, &[&[7; 40]]);
    let hashes = boot_log_made::signature_list(CERT_SHA256, &[&[1; 32], &[2; 32]]);
    vec![[certificates.as_slice(), &hashes].concat(), hashes]
}

/// A path, a line feed, and the bytes of the tile.
fn audit_tile(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let path = parts.next().and_then(|path| str::from_utf8(path).ok());
    let Some(Ok(tile)) = path.map(str::parse::<Tile>) else {
        return;
    };
    assert_eq!(Some(tile.to_string().as_str()), path);
    let content = parts.next().unwrap_or_default();
    drop(tile.parse_hashes(content));
    drop(tile.parse_entries(content));
}

/// One `key=value` a line.
fn audit_query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    if let Ok(domain) = TrustDomain::new("plant.example") {
        drop(Query::parse(
            pairs,
            &domain,
            &CursorKey::new(&Secret::new([7; 32])),
        ));
    }
}

/// The place that is read is the one that is given out again.
fn audit_coverage_cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(cursor) = text.parse::<CoverageCursor>() {
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
    }
}

/// One `key=value` a line.
fn audit_stats_query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    if let Ok(domain) = TrustDomain::new("plant.example") {
        drop(StatsQuery::parse(pairs, &domain));
    }
}

/// A whole export, line by line.
fn audit_export(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Ok(mut verifier) = Verifier::begin(lines.next().unwrap_or_default(), None) else {
        return;
    };
    for line in lines {
        drop(verifier.line(line));
    }
    drop(verifier.finish());
}

fn none() -> Vec<Vec<u8>> {
    Vec::new()
}

fn certificates() -> Vec<Vec<u8>> {
    let authority = edgeward_identity::testing::TestAuthority::new("plant.example");
    let svid = authority.svid("node/a");
    svid.chain()
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect()
}
