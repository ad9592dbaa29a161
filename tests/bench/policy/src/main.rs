//! Figures of the policy engine. `run` calls each cell in a process of its own, so that memory is its own.

mod engine;
mod peers;
mod plant;
mod scale;
mod timing;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["decide", engine, rules] => {
            let rules: usize = rules.parse().expect("a number of rules");
            match *engine {
                "edgeward" => engine::decide(rules),
                "casbin" => peers::casbin(rules),
                "cedar" => peers::cedar(rules),
                "regorus" => peers::regorus(rules),
                other => panic!("no such engine: {other}"),
            }
        }
        ["rows", rows, about] => engine::rows(
            rows.parse().expect("a number of rows"),
            about.parse().expect("a number of rows"),
        ),
        ["swap", rows, peers] => engine::swap(
            rows.parse().expect("a number of rows"),
            peers.parse().expect("a number of peers"),
        ),
        ["scale", rules, nodes] => scale::measure(
            rules.parse().expect("a number of rules"),
            nodes.parse().expect("a number of nodes"),
        ),
        _ => {
            eprintln!(
                "usage: edgeward-policy-bench decide ENGINE RULES | rows ROWS ABOUT | swap ROWS PEERS | scale RULES NODES"
            );
            std::process::exit(2);
        }
    }
}
