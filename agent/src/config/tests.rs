use edgeward_tunnel::shell::{Profile, Threads};

use super::*;
use std::io::Write;

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, BadConfig> {
    let mut file = tempfile::Builder::new()
        .suffix("agent.toml")
        .tempfile()
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load_with(file.path(), environment)
}

#[test]
fn a_value_that_makes_no_sense_is_refused_under_its_key() {
    for (text, key) in [
        ("mtu = 1279", "mtu"),
        ("mtu = 65001", "mtu"),
        ("metrics_listen = \"0.0.0.0:9464\"", "metrics_listen"),
        ("names_listen = \"192.0.2.1:53\"", "names_listen"),
        ("names_listen = \"127.0.0.55:0\"", "names_listen"),
        (
            "names = \"resolv.conf\"\nnames_listen = \"127.0.0.55:5353\"",
            "names_listen",
        ),
        ("report_every = \"0s\"", "report_every"),
        ("idle_after = \"1s\"", "idle_after"),
        ("metered = true\nbinds = \"always\"", "binds"),
        ("cloud = [\"cloud.example\"]", "cloud"),
        ("advertise = [\"192.0.2.1\"]", "advertise"),
        ("[tpm]\ntcti = \"/dev/tpm0\"", "tpm.tcti"),
        ("[tpm]\nfirst_handle = 0x80000000", "tpm.first_handle"),
        ("[tpm]\nepoch_index = 1", "tpm.epoch_index"),
        ("interfaces = { mesh = \"eth1\" }", "interfaces"),
        ("interfaces = { a = \"edgeward0\" }", "interfaces"),
        ("interfaces = { a = \"eth1\", b = \"eth1\" }", "interfaces"),
        (
            "[ext_authz]\nusers = [101]\nsocket = \"a.sock\"",
            "ext_authz.socket",
        ),
        (
            "[relay]\nbytes_per_second_node = 1",
            "relay.bytes_per_second_node",
        ),
        ("[logs]\nboot = \"log\"", "logs.boot"),
        ("[logs]\nima = \"\"", "logs.ima"),
    ] {
        match load(text, &[]) {
            Err(BadConfig::Value { key: found, .. }) => assert_eq!(found, key),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused_with_its_place() {
    for (text, place) in [
        ("\nstate_dirs = \"/tmp\"", ":2:1"),
        ("interface = \"a/b\"", ":1:13"),
        ("interfaces = { lan0 = \"eth*\" }", ":1:23"),
        ("[tpm]\nek = \"rsa\"", ":2:6"),
        ("listen = 51820", ":1:10"),
        ("names = \"dns\"", ":1:9"),
        ("report_every = 10", ":1:16"),
    ] {
        let error = load(text, &[]).unwrap_err().to_string();
        assert!(error.contains(place), "{text}: {error}");
    }
}

#[test]
fn an_empty_file_gets_the_documented_defaults() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/edgeward-agent"));
    assert_eq!(
        config.enforce.status_socket,
        Path::new("/run/edgeward/agent.sock")
    );
    assert_eq!(config.enforce.listen.port(), 51820);
    assert_eq!(config.enforce.device.as_str(), "edgeward0");
    assert_eq!(config.metrics, SocketAddr::from(([127, 0, 0, 1], 9464)));
    assert!(config.enforce.kernel_leases);
    let tpm = config.tpm.unwrap();
    assert_eq!(&*tpm.place.tcti, "device:/dev/tpmrm0");
}

#[test]
fn twins_win_over_the_file_and_variables_of_the_command_line_are_none() {
    let config = load(
        "mtu = 1400\n[tpm]\nek = \"p-256\"\n",
        &[
            ("EDGEWARD_AGENT_MTU", "1300"),
            ("EDGEWARD_AGENT_TPM__TCTI", "none"),
            ("EDGEWARD_AGENT_LOGS__IMA", "/var/lib/ima"),
            ("EDGEWARD_AGENT_INTERFACES__LAN0", "eth1.100"),
            ("EDGEWARD_AGENT_CONFIG", "/elsewhere"),
            ("EDGEWARD_AGENT_LOG_FORMAT", "json"),
            ("EDGEWARD_LISTEN", "the cloud's"),
        ],
    )
    .unwrap();
    assert_eq!(config.enforce.mtu, 1300);
    assert!(config.tpm.is_none());
    let lan = config.enforce.nets.device("lan0").unwrap();
    assert_eq!(lan.as_str(), "eth1.100");
    assert_eq!(config.logs.ima, Path::new("/var/lib/ima"));
    assert!(config.logs.boot.starts_with("/sys/kernel/security"));
}

#[test]
fn the_shipped_sample_says_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config/agent.toml");
    let sample = Config::load_with(&path, std::iter::empty()).unwrap();
    let least = load("", &[]).unwrap();
    assert_eq!(format!("{sample:?}"), format!("{least:?}"));
}

#[test]
fn proxies_may_ask_only_where_their_users_are_named() {
    assert_eq!(load("", &[]).unwrap().enforce.ext_authz, None);
    let named = load("run_dir = \"/run/x\"\n[ext_authz]\nusers = [101, 0]", &[]).unwrap();
    let asked = named.enforce.ext_authz.unwrap();
    assert_eq!(asked.users, [101, 0]);
    assert_eq!(asked.socket, Path::new("/run/x/ext_authz.sock"));
}

#[test]
fn the_data_path_is_chosen_by_name_and_number() {
    let least = load("", &[]).unwrap().enforce.data_path;
    assert_eq!(least, DataPath::default());
    let text = "tunnel_profile = \"small\"\ntunnel_threads = 0\nudp_gso = false\n";
    let environment = [("EDGEWARD_AGENT_TUN_OFFLOAD", "false")];
    let chosen = load(text, &environment).unwrap().enforce.data_path;
    assert_eq!(chosen.profile, Profile::Small);
    assert_eq!(chosen.threads, Threads::Shared);
    assert!(!chosen.tun_offload && !chosen.udp.gso && chosen.udp.gro);
    let linger = |text| load(text, &[]).unwrap().enforce.data_path.linger;
    assert!(linger("") && !linger("tunnel_linger = false"));
    assert!(!linger("metered = true"), "a battery, often");
    for (value, threads) in [
        ("auto", Threads::Auto),
        ("1", Threads::One),
        ("2", Threads::Two),
    ] {
        let environment = [("EDGEWARD_AGENT_TUNNEL_THREADS", value)];
        let chosen = load("", &environment).unwrap().enforce.data_path;
        assert_eq!(chosen.threads, threads, "{value}");
    }
    for text in [
        "tunnel_profile = \"fast\"",
        "tunnel_threads = 3",
        "tunnel_threads = -1",
        "tunnel_threads = \"many\"",
    ] {
        assert!(load(text, &[]).is_err(), "{text}");
    }
}
