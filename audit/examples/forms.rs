//! Prints every kind of event with every verdict as an object of OCSF, one a line: what a validator of others is given.

use edgeward_audit::event::{Actor, Event, EventKind};
use edgeward_audit::export::{Exported, ocsf};
use edgeward_audit::record::BootId;
use edgeward_audit::{Digest, Verdict};
use edgeward_identity::{SpiffeId, Timestamp};

#[allow(clippy::print_stdout, reason = "its output is what it is for")]
fn main() {
    let operator: SpiffeId = "spiffe://plant.example/operator/anna"
        .parse()
        .expect("an id");
    let node: SpiffeId = "spiffe://plant.example/node/gw-3".parse().expect("an id");
    let cloud: SpiffeId = "spiffe://plant.example/cloud/main".parse().expect("an id");
    let address: std::net::IpAddr = [192, 0, 2, 7].into();
    let actors = [
        Actor::Cloud,
        Actor::Identity(operator),
        Actor::api_key("ci"),
        Actor::from(address),
    ];
    for kind in EventKind::ALL {
        for verdict in Verdict::ALL {
            for (number, actor) in (0..).zip(&actors) {
                let mut event = Event::new(
                    Timestamp::from_millis(1_763_800_000_123),
                    actor.clone(),
                    *kind,
                )
                .code("because")
                .detail("why", "routine");
                event.verdict = verdict;
                if number % 2 == 0 {
                    event = event.subject("gw-3").rule("scada-reads");
                }
                let exported = Exported {
                    index: number,
                    node: if number < 2 { &node } else { &cloud },
                    boot: BootId::from_bytes([7; 16]),
                    seq: number,
                    hash: Digest::ZERO,
                    received: Timestamp::from_millis(1_763_800_000_500),
                    claimed: false,
                    event: &event,
                };
                println!("{}", ocsf::line(&exported));
            }
        }
    }
}
