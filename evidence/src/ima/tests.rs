//! Numbers are those of the checklist of refusals that the project keeps.

mod vectors;

use super::*;
use crate::testing::ima::{ImaList, data};
use crate::tpm::PcrBank;

const ALLOWED: [u8; 32] = [1; 32];
const ELSEWHERE: [u8; 32] = [2; 32];
const DENIED: [u8; 32] = [3; 32];

fn listed<'a>(digest: &'a [u8; 32], path: Option<&'static str>) -> ListedFile<'a> {
    ListedFile {
        hash: HashAlg::Sha256,
        digest,
        path: path.map(str::as_bytes),
    }
}

fn policy(violations: Violations) -> ImaPolicy {
    ImaPolicy::new(
        [
            listed(&ALLOWED, None),
            listed(&ELSEWHERE, Some("/usr/bin/there")),
            listed(&DENIED, None),
        ],
        [listed(&DENIED, None)],
        violations,
    )
    .unwrap()
}

/// Boot aggregate and two allowed files.
fn good_list() -> ImaList {
    let mut list = ImaList::new();
    list.add("/bin/a", HashAlg::Sha256, &ALLOWED);
    list.add_signed("/bin/b", &ALLOWED, &[7; 72]);
    list
}

fn followed(list: &ImaList, policy: &ImaPolicy) -> ImaVerdict {
    let entries = parse_binary(&list.bytes).unwrap();
    let verdict = ImaVerdict::new(PcrBank::Sha256, policy)
        .follow(0, &entries, &list.pcr, policy)
        .unwrap();
    assert!(verdict.reached(&list.pcr));
    verdict
}

fn faults(list: &ImaList, violations: Violations) -> Vec<FileFault> {
    let verdict = followed(list, &policy(violations));
    let faults: Vec<_> = verdict.files().iter().map(|file| file.fault).collect();
    assert_eq!(verdict.refused(), u64::try_from(faults.len()).unwrap());
    faults
}

fn code(list: &ImaList) -> &'static str {
    parse_binary(&list.bytes).unwrap_err().code()
}

/// A list whose one entry has this data.
fn with_data(template: &str, data: &[u8]) -> ImaList {
    let mut list = ImaList::default();
    list.add_data(template, data);
    list
}

#[test]
fn a_list_cut_anywhere_within_an_entry_is_refused() {
    let list = good_list();
    let whole = parse_binary(&list.bytes).unwrap();
    let mut ends = vec![0];
    for entry in &whole {
        let fixed = 4 + 20 + 4 + entry.template().as_str().len() + 4;
        ends.push(ends[ends.len() - 1] + fixed + entry.data().len());
    }
    for end in 0..list.bytes.len() {
        let cut = parse_binary(&list.bytes[..end]);
        match ends.contains(&end) {
            true => assert!(cut.is_ok(), "{end}"),
            false => assert_eq!(cut.unwrap_err().code(), "ima_truncated", "{end}"),
        }
    }
}

#[test]
fn every_altered_byte_of_an_entry_is_refused_or_gives_another_value() {
    let list = good_list();
    for index in 0..list.bytes.len() {
        let mut altered = list.bytes.clone();
        altered[index] ^= 0x40;
        let Ok(entries) = parse_binary(&altered) else {
            continue;
        };
        assert_ne!(replay(&entries, HashAlg::Sha256), list.pcr, "byte {index}");
    }
}

#[test]
fn sizes_beyond_the_bytes_or_the_limits_are_refused_before_anything_is_made_of_them() {
    let entry = |name: u32, data: u32| {
        let mut bytes = [10_u32.to_le_bytes().as_slice(), &[1; 20]].concat();
        bytes.extend_from_slice(&name.to_le_bytes());
        bytes.extend_from_slice(b"ima-ng");
        bytes.extend_from_slice(&data.to_le_bytes());
        parse_binary(&bytes).unwrap_err().code()
    };
    assert_eq!(entry(u32::MAX, 0), "ima_template");
    assert_eq!(entry(0, 0), "ima_template");
    assert_eq!(entry(6, u32::MAX), "ima_entry_too_large");
    assert_eq!(entry(6, 100), "ima_truncated");
    let large = vec![0; MAX_IMA_PART_BYTES + 1];
    assert_eq!(parse_binary(&large).unwrap_err().code(), "ima_too_large");
    assert_eq!(binary_of_ascii(&large).unwrap_err().code(), "ima_too_large");
}

#[test]
fn templates_that_are_not_read_and_other_pcrs_are_refused() {
    for template in ["ima", "ima-buf", "ima-modsig", "evm-sig", "x"] {
        let list = with_data(template, &data(b"/a", "sha256", &ALLOWED, None));
        assert_eq!(code(&list), "ima_template", "{template}");
    }
    let mut list = ImaList::default();
    let data = data(b"/a", "sha256", &ALLOWED, None);
    list.put(11, &HashAlg::Sha1.digest(&[&data]), "ima-ng", &data);
    assert_eq!(code(&list), "ima_pcr");
}

#[test]
fn an_unknown_algorithm_or_a_digest_of_another_length_is_refused() {
    for algorithm in ["unknown", "sm3_256", "SHA256", "sha256 ", "", "md5"] {
        let list = with_data("ima-ng", &data(b"/a", algorithm, &ALLOWED, None));
        assert_eq!(code(&list), "ima_algorithm", "{algorithm}");
    }
    for (algorithm, length) in [("sha1", 32), ("sha256", 20), ("sha384", 64), ("sha512", 0)] {
        let list = with_data("ima-ng", &data(b"/a", algorithm, &vec![1; length], None));
        assert_eq!(code(&list), "ima_digest_length", "{algorithm}");
    }
}

#[test]
fn data_without_the_templates_fields_is_refused() {
    let good = data(b"/a", "sha256", &ALLOWED, None);
    let signed = data(b"/a", "sha256", &ALLOWED, Some(&[1; 4]));
    for (template, bytes) in [
        ("ima-ng", signed.as_slice()),
        ("ima-sig", &good),
        ("ima-ng", &good[..good.len() - 1]),
        ("ima-ng", &[]),
        ("ima-sig", &signed[..signed.len() - 1]),
    ] {
        let list = with_data(template, bytes);
        assert_eq!(code(&list), "ima_fields", "{template} {}", bytes.len());
    }
    for path in [b"".as_slice(), b"/a\0b", &[b'a'; 4097]] {
        let list = with_data("ima-ng", &data(path, "sha256", &ALLOWED, None));
        assert_eq!(code(&list), "ima_path");
    }
}

#[test]
fn a_template_digest_that_is_not_over_its_data_is_refused() {
    let mut list = ImaList::default();
    let data = data(b"/a", "sha256", &ALLOWED, None);
    list.put(10, &[1; 20], "ima-ng", &data);
    assert_eq!(code(&list), "ima_template_hash");
}

/// Test 56: shortened, reordered, with an entry more, less or another one.
#[test]
fn a_list_that_is_not_what_the_tpm_measured_never_reaches_the_quoted_value() {
    let policy = policy(Violations::Fail);
    let quoted = good_list().pcr;
    let reaches = |list: &ImaList| {
        let entries = parse_binary(&list.bytes).unwrap();
        ImaVerdict::new(PcrBank::Sha256, &policy)
            .follow(0, &entries, &quoted, &policy)
            .unwrap()
            .reached(&quoted)
    };
    let mut shortened = ImaList::new();
    shortened.add("/bin/a", HashAlg::Sha256, &ALLOWED);
    let mut reordered = ImaList::new();
    reordered.add_signed("/bin/b", &ALLOWED, &[7; 72]);
    reordered.add("/bin/a", HashAlg::Sha256, &ALLOWED);
    let mut inserted = ImaList::new();
    inserted.add("/bin/a", HashAlg::Sha256, &ALLOWED);
    inserted.add("/bin/c", HashAlg::Sha256, &ALLOWED);
    inserted.add_signed("/bin/b", &ALLOWED, &[7; 72]);
    let mut renamed = ImaList::new();
    renamed.add("/bin/A", HashAlg::Sha256, &ALLOWED);
    renamed.add_signed("/bin/b", &ALLOWED, &[7; 72]);
    for list in [
        &ImaList::default(),
        &shortened,
        &reordered,
        &inserted,
        &renamed,
    ] {
        assert!(!reaches(list));
    }
    assert!(reaches(&good_list()));
}

/// Test 56: a list that began again, or went back, without a reboot.
#[test]
fn entries_that_do_not_continue_what_is_known_are_refused() {
    let policy = policy(Violations::Fail);
    let list = good_list();
    let entries = parse_binary(&list.bytes).unwrap();
    let known = followed(&list, &policy);
    let mut grown = list.clone();
    grown.add("/bin/c", HashAlg::Sha256, &ALLOWED);
    for first in [0, 2, 4, u64::MAX] {
        let refused = known
            .follow(first, &entries, &grown.pcr, &policy)
            .unwrap_err();
        assert_eq!(refused.code(), "ima_not_continued");
    }
    // The same entries once more, as if they were new.
    let again = known.follow(3, &entries, &grown.pcr, &policy).unwrap();
    assert!(!again.reached(&grown.pcr));
    // Nothing at all, although the value went on.
    assert!(
        !known
            .follow(3, &[], &grown.pcr, &policy)
            .unwrap()
            .reached(&grown.pcr)
    );
    let new = parse_binary(&grown.bytes[list.bytes.len()..]).unwrap();
    let next = known.follow(3, &new, &grown.pcr, &policy).unwrap();
    assert!(next.reached(&grown.pcr));
    assert_eq!((next.known(), next.refused()), (4, 0));
}

#[test]
fn a_list_that_does_not_begin_with_the_boot_aggregate_is_refused() {
    let mut list = ImaList::default();
    list.add("/bin/a", HashAlg::Sha256, &ALLOWED);
    let entries = parse_binary(&list.bytes).unwrap();
    let policy = policy(Violations::Fail);
    let refused = ImaVerdict::new(PcrBank::Sha256, &policy)
        .follow(0, &entries, &list.pcr, &policy)
        .unwrap_err();
    assert_eq!(refused.code(), "ima_first_entry");
}

#[test]
fn a_verdict_by_other_lists_is_not_gone_on_with() {
    let list = good_list();
    let verdict = followed(&list, &policy(Violations::Fail));
    let refused = verdict
        .follow(3, &[], &list.pcr, &policy(Violations::Ignore))
        .unwrap_err();
    assert_eq!(refused.code(), "ima_other_policy");
}

/// Test 57.
#[test]
fn a_violation_fails_unless_the_policy_ignores_it_and_extends_ones() {
    let mut list = good_list();
    list.add_violation("/var/lib/changed");
    list.add("/bin/a", HashAlg::Sha256, &ALLOWED);
    assert_eq!(faults(&list, Violations::Fail), [FileFault::Violation]);
    assert!(faults(&list, Violations::Ignore).is_empty());
    let verdict = followed(&list, &policy(Violations::Ignore));
    assert_eq!(verdict.state().violations(), 1);
}

/// A digest by another algorithm has nothing to do with the list's, were it the same bytes.
#[test]
fn a_digest_is_looked_up_under_its_own_algorithm_only() {
    let long = [[1; 32], [1; 32]].concat();
    let policy = ImaPolicy::new(
        [ListedFile {
            hash: HashAlg::Sha512,
            digest: &long,
            path: None,
        }],
        [],
        Violations::Fail,
    )
    .unwrap();
    let compare = |hash, digest| policy.compare(FileDigest { hash, digest }, b"/a");
    assert_eq!(compare(HashAlg::Sha512, &long), policy::Comparison::Allowed);
    for (hash, length) in [
        (HashAlg::Sha1, 20),
        (HashAlg::Sha256, 32),
        (HashAlg::Sha384, 48),
    ] {
        assert_eq!(compare(hash, &long[..length]), policy::Comparison::Unknown);
    }
}

#[test]
fn a_file_that_is_unknown_elsewhere_or_denied_fails_for_as_long_as_the_machine_runs() {
    let mut list = good_list();
    list.add("/bin/unknown", HashAlg::Sha256, &[9; 32]);
    list.add("/bin/weak", HashAlg::Sha1, &[1; 20]);
    list.add("/usr/bin/there", HashAlg::Sha256, &ELSEWHERE);
    list.add("/usr/bin/here", HashAlg::Sha256, &ELSEWHERE);
    list.add("/bin/denied", HashAlg::Sha256, &DENIED);
    // A name that the kernel gives to its first entry only.
    list.add("boot_aggregate", HashAlg::Sha256, &[9; 32]);
    use FileFault::{Denied, NotAllowed, OtherPath};
    let found = faults(&list, Violations::Fail);
    assert_eq!(
        found,
        [NotAllowed, NotAllowed, OtherPath, Denied, NotAllowed]
    );
    let policy = policy(Violations::Fail);
    let known = followed(&list, &policy);
    list.add("/bin/a", HashAlg::Sha256, &ALLOWED);
    let entries = parse_binary(&list.bytes).unwrap();
    let next = known.follow(9, &entries[9..], &list.pcr, &policy).unwrap();
    assert_eq!(next.refused(), 5);
}

#[test]
fn refused_files_are_counted_and_only_the_first_are_kept() {
    let mut list = ImaList::new();
    for index in 0..200_u8 {
        list.add("/bin/unknown", HashAlg::Sha256, &[index; 32]);
    }
    let verdict = followed(&list, &policy(Violations::Fail));
    // Numbers 1 and 2 are known; the latter is elsewhere, and 3 denied.
    assert_eq!(verdict.refused(), 199);
    assert_eq!(verdict.files().len(), verdict::MAX_REFUSED_FILES);
}

/// Test 58.
#[test]
fn a_path_is_bytes_and_is_shown_escaped() {
    let path = b"/tmp/a\nfailed login\x1b[2J\\\xff";
    let mut list = ImaList::new();
    list.add(path, HashAlg::Sha256, &[9; 32]);
    let entries = parse_binary(&list.bytes).unwrap();
    assert_eq!(entries[1].path(), path);
    let verdict = followed(&list, &policy(Violations::Fail));
    let shown = &verdict.files()[0].path;
    assert_eq!(shown, "/tmp/a\\x0afailed login\\x1b[2J\\x5c\\xff");
    assert!(escaped(&[b'a'; 5000]).chars().count() <= 257);
}

/// The kernel goes on measuring between quote and list.
#[test]
fn what_was_measured_after_the_quote_counts_next_time() {
    let policy = policy(Violations::Fail);
    let mut list = good_list();
    let quoted = list.pcr;
    list.add("/bin/unknown", HashAlg::Sha256, &[9; 32]);
    let entries = parse_binary(&list.bytes).unwrap();
    let verdict = ImaVerdict::new(PcrBank::Sha256, &policy)
        .follow(0, &entries, &quoted, &policy)
        .unwrap();
    assert!(verdict.reached(&quoted));
    assert_eq!((verdict.known(), verdict.refused()), (3, 0));
    let next = verdict
        .follow(3, &entries[3..], &list.pcr, &policy)
        .unwrap();
    assert_eq!((next.known(), next.refused()), (4, 1));
}

/// Test 60.
#[test]
fn lists_that_allow_nothing_or_hold_broken_digests_are_no_policy() {
    let make = |allow: &[ListedFile<'_>]| {
        ImaPolicy::new(allow.iter().copied(), [], Violations::Fail).map_err(|bad| bad.code())
    };
    assert_eq!(make(&[]).unwrap_err(), "ima_allows_nothing");
    let of = |hash, digest| ListedFile {
        hash,
        digest,
        path: None,
    };
    assert_eq!(
        make(&[of(HashAlg::Sha1, &[1; 20])]).unwrap_err(),
        "ima_list_sha1"
    );
    assert_eq!(
        make(&[of(HashAlg::Sha384, &[1; 32])]).unwrap_err(),
        "ima_list_digest_length"
    );
}

#[test]
fn a_policys_hash_is_over_what_it_says_and_not_how() {
    let hash = |allow: &[ListedFile<'_>], deny: &[ListedFile<'_>], violations| {
        ImaPolicy::new(allow.iter().copied(), deny.iter().copied(), violations)
            .unwrap()
            .hash()
    };
    let (a, b) = (listed(&ALLOWED, None), listed(&ELSEWHERE, Some("/b")));
    let good = hash(&[a, b], &[], Violations::Fail);
    assert_eq!(hash(&[b, a, b], &[], Violations::Fail), good);
    let other_path = listed(&ELSEWHERE, Some("/c"));
    assert_ne!(hash(&[a, other_path], &[], Violations::Fail), good);
    assert_ne!(hash(&[a], &[b], Violations::Fail), good);
    assert_ne!(hash(&[a, b], &[], Violations::Ignore), good);
}

#[test]
fn a_list_beyond_its_bound_is_refused_however_it_comes() {
    let mut list = ImaList::new();
    let mut state = ImaState::new(PcrBank::Sha256);
    state.extend(&parse_binary(&list.bytes).unwrap()).unwrap();
    list = ImaList::default();
    for _ in 0..400 {
        list.add_signed([b'a'; 4000], &ALLOWED, &[0; 1000]);
    }
    let entries = parse_binary(&list.bytes).unwrap();
    let refused = (0..40)
        .find_map(|_| state.extend(&entries).err())
        .expect("40 times 2 MB are over 64 MiB");
    assert_eq!(refused.code(), "ima_list_too_large");
}

#[test]
fn a_window_holds_whole_entries_and_says_whether_more_follow() {
    let list = good_list();
    let whole = window(&list.bytes, 0, MAX_IMA_PART_BYTES).unwrap();
    assert_eq!((whole.entries, whole.more), (list.bytes.as_slice(), false));
    let mut sent = Vec::new();
    for first in 0..3 {
        // One byte is less than any entry, of which one is always sent.
        let part = window(&list.bytes, first, 1).unwrap();
        assert_eq!(parse_binary(part.entries).unwrap().len(), 1);
        assert_eq!(part.more, first < 2);
        sent.extend_from_slice(part.entries);
    }
    assert_eq!(sent, list.bytes);
    assert!(window(&list.bytes, 3, 100).unwrap().entries.is_empty());
    // What the kernel had not finished writing is left for the next time.
    let cut = window(&list.bytes[..list.bytes.len() - 1], 0, 1 << 20).unwrap();
    assert_eq!(parse_binary(cut.entries).unwrap().len(), 2);
    // Fewer than are known: the machine booted, or somebody lies.
    assert_eq!(
        window(&list.bytes, 4, 100).unwrap_err().code(),
        "ima_truncated"
    );
}
