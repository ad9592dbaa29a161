use std::io::Write as _;
use std::process::{Command, Stdio};

use edgeward_policy::slice::PeerIndex;
use edgeward_policy::{Egress, SlicePeer};

use super::*;

fn place(path: &str) -> Place {
    Place {
        path: format!("/{path}"),
        shown: path.to_owned(),
        level: u32::try_from(path.split('/').count()).unwrap(),
    }
}

fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

fn goal(net: &str, proto: Proto, port: u16) -> Goal {
    let net = net.parse().unwrap();
    Goal { net, proto, port }
}

/// A slice that lets this node reach a peer's service, a network behind it, the internet, and one for its devices only.
fn slice() -> Slice {
    let mut slice = crate::workload::tests::slice(1, &[]).slice.clone();
    slice.peers = vec![SlicePeer {
        id: "spiffe://plant.example/node/hub".parse().unwrap(),
        groups: vec![],
        v6: "fd00::7".parse().unwrap(),
        v4: Some("100.64.0.7".parse().unwrap()),
        fresh: None,
        offline: None,
        software: false,
        relay: false,
        exit: true,
        routes: vec![],
        devices: vec![],
    }];
    let egress = |interface: &str, port, beyond, devices: &[u32]| Egress {
        peer: PeerIndex(0),
        service: "historian".to_owned(),
        interface: interface.to_owned(),
        proto: Proto::Tcp,
        port,
        beyond,
        devices: devices
            .iter()
            .map(|index| edgeward_policy::DeviceIndex(*index))
            .collect(),
        rows: vec![],
    };
    let net = Beyond::Net("10.3.0.0/24".parse().unwrap());
    slice.egress = vec![
        egress("tsdb", 8086, None, &[]),
        egress("plc", 502, Some(net), &[]),
        egress("web", 0, Some(Beyond::Internet), &[]),
        egress("panel", 80, None, &[0]),
    ];
    slice
}

#[test]
fn an_application_reaches_what_it_is_given_of_what_its_node_may_and_nothing_else() {
    let mut slice = slice();
    let collector = app("acme/collector");
    assert!(goals(&slice, &collector).is_empty(), "it is given nothing");
    let mut give = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        slice.apps.reach.insert(collector.clone(), names);
        goals(&slice, &collector)
    };
    // Not the node's to give: a name that is none, its devices' own, and everybody.
    let nothing = give(&[
        "historian/other",
        "tsdb",
        "historian/panel",
        "historian/web",
    ]);
    assert!(nothing.is_empty(), "{nothing:?}");
    let both = [
        goal("100.64.0.7/32", Proto::Tcp, 8086),
        goal("fd00::7/128", Proto::Tcp, 8086),
        goal("10.3.0.0/24", Proto::Tcp, 502),
    ];
    let given = give(&["historian/tsdb", "historian/plc"]);
    assert_eq!(given, BTreeSet::from(both));
    assert!(goals(&slice, &app("acme/other")).is_empty());
}

/// A machine of its own: network, and control groups of its own name. What is said on its standard input is done.
struct Machine {
    shell: std::process::Child,
    answers: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    parent: String,
}

const SETUP: &str = "set -e
mount -t cgroup2 none /sys/fs/cgroup
cd /sys/fs/cgroup; mkdir $P $P/a $P/b
ip link set lo up
ip link add edgeward0 type veth peer name far; ip link set far up
ip addr add 10.9.0.1/24 dev edgeward0; ip link set edgeward0 up
for last in 2 3; do ip neigh add 10.9.0.$last lladdr 02:00:00:00:00:0$last dev edgeward0; done
in_group() { (echo 0 > /sys/fs/cgroup/$1/cgroup.procs; shift; exec \"$@\"); }
SEND='use Socket; socket(S, PF_INET, SOCK_DGRAM, 0) or die; exit !send(S, q(x), 0, pack_sockaddr_in($ARGV[1], inet_aton($ARGV[0])))'
sends() { in_group $1 perl -e \"$SEND\" $2 $3 2>/dev/null && echo sent || echo kept; }
set +e
echo ready
while read -r line; do eval \"$line\"; done
rmdir $P/a $P/b $P
";

impl Machine {
    fn new(name: &str) -> Self {
        use std::io::BufRead as _;
        let parent = format!("edgeward-egress-{name}-{}", std::process::id());
        let mut shell = Command::new("unshare")
            .args(["-n", "-m", "timeout", "-s", "KILL", "60", "bash", "-c"])
            .arg(SETUP)
            .env("P", &parent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = std::io::BufReader::new(shell.stdout.take().unwrap()).lines();
        let mut machine = Self {
            shell,
            answers,
            parent,
        };
        assert_eq!(machine.answer(), "ready");
        machine
    }

    fn say(&mut self, line: &str) {
        let input = self.shell.stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
    }

    fn answer(&mut self) -> String {
        self.answers.next().unwrap().unwrap()
    }

    fn asks(&mut self, line: &str) -> String {
        self.say(line);
        self.answer()
    }

    /// Whether a datagram from a group leaves.
    fn sends(&mut self, group: &str, to: &str, port: u16) -> bool {
        let group = format!("{}/{group}", self.parent);
        match self.asks(&format!("sends {group} {to} {port}")).as_str() {
            "sent" => true,
            "kept" => false,
            other => panic!("{other}"),
        }
    }

    fn put(&mut self, ways: &BTreeMap<AppName, Way>) {
        let tunnel = "edgeward0".parse().unwrap();
        let ground = Ground {
            table: "edgeward_edgeward0_apps",
            tunnel: &tunnel,
            parent: &place(&self.parent),
            names: Some("127.0.0.1:53".parse().unwrap()),
            serves: BTreeSet::from([(Proto::Udp, 4000)]),
        };
        let text = make(&ground, ways);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &text).unwrap();
        let done = self.asks(&format!("nft -f {} && echo done", file.path().display()));
        assert_eq!(done, "done", "{text}");
    }

    fn way(&self, group: &str, goals: &[Goal]) -> Way {
        Way {
            group: place(&format!("{}/{group}", self.parent)),
            goals: goals.iter().copied().collect(),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

#[test]
fn a_program_sends_to_its_own_goals_only_and_one_that_was_not_let_in_to_nobody() {
    let mut machine = Machine::new("goals");
    let goals = [goal("10.9.0.2/32", Proto::Udp, 4711)];
    let ways = BTreeMap::from([(app("acme/a"), machine.way("a", &goals))]);
    assert!(
        machine.sends("b", "10.9.0.2", 4711),
        "there is no table yet"
    );
    machine.put(&ways);
    assert!(machine.sends("a", "10.9.0.2", 4711));
    for (to, port) in [
        ("10.9.0.2", 4712),
        ("10.9.0.3", 4711),
        ("10.9.0.1", 4711),
        ("127.0.0.1", 4711),
    ] {
        assert!(!machine.sends("a", to, port), "{to} {port}");
    }
    assert!(machine.sends("a", "127.0.0.1", 53), "names");
    for to in ["10.9.0.2", "127.0.0.1"] {
        assert!(!machine.sends("b", to, 4711), "{to}");
        assert!(!machine.sends("", to, 4711), "{to} from the group of all");
        assert!(!machine.sends("b", to, 53), "{to}");
    }
    // The rest of the machine is not our concern.
    let outside = machine.asks("perl -e \"$SEND\" 10.9.0.3 9 && echo sent");
    assert_eq!(outside, "sent");
}

#[test]
fn what_is_withdrawn_sends_nothing_more_even_from_a_socket_that_is_open() {
    let mut machine = Machine::new("withdrawn");
    let goals = [goal("10.9.0.2/32", Proto::Udp, 4711)];
    let mut ways = BTreeMap::from([
        (app("acme/a"), machine.way("a", &goals)),
        (app("acme/b"), machine.way("b", &goals)),
    ]);
    machine.put(&ways);
    let group = format!("{}/a", machine.parent);
    // Sends at once, and once more for each line that it reads.
    machine.say("mkfifo /tmp/go.$$; HOLD='use Socket; $|=1; socket(S, PF_INET, SOCK_DGRAM, 0); connect(S, pack_sockaddr_in(4711, inet_aton(q(10.9.0.2)))); print send(S, q(x), 0) ? qq(sent\\n) : qq(kept\\n); while (<STDIN>) { print send(S, q(x), 0) ? qq(sent\\n) : qq(kept\\n) }'");
    machine.say(&format!(
        "in_group {group} perl -e \"$HOLD\" < /tmp/go.$$ & exec 9> /tmp/go.$$; rm /tmp/go.$$"
    ));
    assert_eq!(machine.answer(), "sent");
    assert_eq!(machine.asks("echo again >&9"), "sent");
    ways.remove(&app("acme/a"));
    machine.put(&ways);
    assert_eq!(machine.asks("echo again >&9"), "kept");
    assert!(!machine.sends("a", "10.9.0.2", 4711));
    assert!(machine.sends("b", "10.9.0.2", 4711));
    machine.say("exec 9>&-; wait");
}

#[test]
fn a_program_that_serves_answers_and_asks_nobody() {
    let mut machine = Machine::new("serves");
    let ways = BTreeMap::from([(app("acme/a"), machine.way("a", &[]))]);
    machine.put(&ways);
    let group = format!("{}/a", machine.parent);
    assert!(
        !machine.sends("a", "127.0.0.1", 53),
        "it has nothing to ask for"
    );
    machine.say("SERVE='use Socket; $|=1; socket(S, PF_INET, SOCK_STREAM, 0); bind(S, pack_sockaddr_in(5000, INADDR_ANY)); listen(S, 1); print qq(listens\\n); accept(C, S); syswrite(C, q(hello)); close C'");
    let listens = machine.asks(&format!("in_group {group} perl -e \"$SERVE\" & :"));
    assert_eq!(listens, "listens");
    let asked = "perl -e 'use Socket; alarm 5; socket(S, PF_INET, SOCK_STREAM, 0); connect(S, pack_sockaddr_in(5000, inet_aton(q(127.0.0.1)))) or die $!; sysread(S, $b, 9); print qq($b\\n)'; wait";
    assert_eq!(machine.asks(asked), "hello");
}
