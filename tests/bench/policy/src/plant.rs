//! Policies and fleets of any size.

use std::fmt::Write;

use edgeward_identity::{SpiffeId, Tier};
use edgeward_policy::{Fleet, FleetNode, SourceFile};

/// 2026-11-20T18:00:00Z.
pub const NOW: u64 = 1_795_197_600;
pub const ROWS_PER_INTERFACE: usize = 100;
pub const GROUPS_PER_INTERFACE: usize = 20;
/// Nodes of one site of the plant.
pub const SITE_NODES: usize = 12;

const HEAD: &str = "schema = \"edgeward-policy/1\"\nowner = \"bench\"\n";

/// One node that offers many interfaces, each with so many rules from so many groups; a tenth denies.
pub fn hub(interfaces: usize, rows: usize, groups: usize) -> Vec<SourceFile> {
    let mut head = format!("{HEAD}scope = \"any\"\n[group.hub]\nmatch = {{ role = [\"hub\"] }}\n");
    for group in 0..groups * interfaces.min(50) {
        writeln!(
            head,
            "[group.g{group}]\nmatch = {{ role = [\"r{group}\"] }}"
        )
        .unwrap();
    }
    let mut files = vec![SourceFile::new("groups.toml", head)];
    let mut text = format!("{HEAD}scope = \"any\"\n");
    for interface in 0..interfaces {
        write!(
            text,
            "[service.s{interface}]\non = \"hub\"\n[service.s{interface}.interface.i]\nnet = \"mesh\"\nl4 = \"tcp/{}\"\n",
            1000 + interface
        )
        .unwrap();
        for row in 0..rows {
            let group = (interface * groups + row % groups) % (groups * interfaces.min(50));
            // No rule leaves nothing to another: the later an allow ends, the fresher it wants its evidence.
            let minute = row % 1440;
            let (effect, more) = if row % 10 == 9 {
                writeln!(text, "[window.w{interface}-{row}]\ntz = \"Europe/Berlin\"\ndays = [\"sun\"]\nfrom = \"{:02}:{:02}\"\nto = \"24:00\"", minute / 60, minute % 60).unwrap();
                (
                    "deny",
                    format!("when = {{ window = \"w{interface}-{row}\" }}"),
                )
            } else {
                let until = format!(
                    "2027-01-01T{:02}:{:02}:{:02}Z",
                    row / 3600 % 24,
                    row / 60 % 60,
                    row % 60
                );
                (
                    "allow",
                    format!(
                        "when = {{ until = {until} }}\nfresh = \"{}m\"",
                        10_000 - row
                    ),
                )
            };
            write!(
                text,
                "[[rule]]\nid = \"s{interface}-{row}\"\neffect = \"{effect}\"\nfrom = [\"group:g{group}\"]\nto = [\"s{interface}/i\"]\ndo = [\"connect\"]\n{more}\n",
            )
            .unwrap();
        }
        // A few to a file: a policy has no more than 1,000 files.
        if interface % 4 == 3 || interface + 1 == interfaces {
            let rules = std::mem::replace(&mut text, format!("{HEAD}scope = \"any\"\n"));
            files.push(SourceFile::new(format!("s{interface}.toml"), rules));
        }
    }
    files
}

pub fn hub_node() -> SpiffeId {
    node("hub")
}

/// The hub, and so many nodes in each of so many groups.
pub fn hub_fleet(groups: usize, each: usize) -> Fleet {
    let mut nodes = vec![member("hub", &[("role", "hub")])];
    for group in 0..groups {
        for index in 0..each {
            nodes.push(member(
                &format!("n{group}-{index}"),
                &[("role", &format!("r{group}"))],
            ));
        }
    }
    Fleet { nodes }
}

/// Sites of a plant, each with a file of its own, and rules among their machines.
pub fn sites(rules: usize, nodes: usize) -> (Vec<SourceFile>, Fleet) {
    let sites = nodes.div_ceil(SITE_NODES);
    let per_site = rules.div_ceil(sites);
    let files =
        (0..sites).map(|site| site_file(site, per_site.min(rules - (site * per_site).min(rules))));
    let files = files.collect();
    let nodes = (0..nodes).map(|index| {
        let (site, machine) = (format!("site{}", index / SITE_NODES), index % SITE_NODES);
        member(
            &format!("n{index}"),
            &[("site", &site), ("role", &format!("r{machine}"))],
        )
    });
    (
        files,
        Fleet {
            nodes: nodes.collect(),
        },
    )
}

fn site_file(site: usize, rules: usize) -> SourceFile {
    let mut text = format!("{HEAD}scope = {{ site = [\"site{site}\"] }}\n");
    for role in 0..SITE_NODES {
        writeln!(
            text,
            "[group.s{site}-r{role}]\nmatch = {{ site = [\"site{site}\"], role = [\"r{role}\"] }}"
        )
        .unwrap();
    }
    // Four machines of each site offer four services with three interfaces.
    for service in 0..16 {
        writeln!(
            text,
            "[service.s{site}-v{service}]\non = \"s{site}-r{}\"",
            service % 4
        )
        .unwrap();
        for interface in 0..3 {
            writeln!(
                text,
                "[service.s{site}-v{service}.interface.i{interface}]\nnet = \"mesh\"\nl4 = \"tcp/{}\"",
                1000 + service * 3 + interface
            )
            .unwrap();
        }
    }
    writeln!(text, "[window.s{site}-night]\ntz = \"Asia/Shanghai\"\ndays = [\"sat\", \"sun\"]\nfrom = \"02:00\"\nto = \"05:00\"").unwrap();
    for rule in 0..rules {
        let (service, interface, from) = (rule % 16, rule / 16 % 3, 4 + rule / 48 % 8);
        let more = match rule % 7 {
            0 => format!("when = {{ window = \"s{site}-night\" }}\n"),
            1 => "tier = [\"hardware\"]\nfresh = \"5m\"\n".to_owned(),
            2 => "offline = \"0s\"\n".to_owned(),
            _ => String::new(),
        };
        let effect = if rule % 11 == 10 {
            "deny\"\nunless_state = \"trusted"
        } else {
            "allow"
        };
        write!(
            text,
            "[[rule]]\nid = \"s{site}-{rule}\"\neffect = \"{effect}\"\nfrom = [\"group:s{site}-r{from}\"]\nto = [\"s{site}-v{service}/i{interface}\"]\ndo = [\"connect\"]\n{}",
            if effect == "allow" { &more } else { "" }
        )
        .unwrap();
    }
    SourceFile::new(format!("site{site}.toml"), text)
}

fn member(name: &str, labels: &[(&str, &str)]) -> FleetNode {
    FleetNode {
        id: node(name),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        tier: Tier::Hardware,
        v4: None,
    }
}

fn node(name: &str) -> SpiffeId {
    format!("spiffe://plant.example/node/{name}")
        .parse()
        .expect("a node's ID")
}
