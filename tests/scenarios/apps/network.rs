//! What an app reaches: what it was given of its node's rights, and nothing else.

use edgeward_tests::publisher::Program;

use super::{APP, Plant, await_note};
use crate::traffic::{await_reach, overlay, serve};

const STORE: u16 = 8090;
const RULES: &str = "[service.store]\non = \"machines\"\n\n\
    \x20 [service.store.interface.data]\n  net = \"mesh\"\n  l4  = \"tcp/8090\"\n\n\
    [[rule]]\nid = \"gateways-store\"\neffect = \"allow\"\nfrom = [\"group:gateways\"]\n\
    to = [\"store/data\"]\ndo = [\"connect\"]\n";

/// Fetches the page of the machine over and over, and notes it.
const ASK: &str = r#"
import socket, time
while True:
    note = b"nothing"
    try:
        with socket.create_connection(("ADDRESS", 8090), 2) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while part := s.recv(4096):
                answer += part
            note = answer.split(b"\r\n\r\n", 1)[1]
    except OSError:
        pass
    with open("/state/note", "wb") as f:
        f.write(note)
    time.sleep(0.3)
"#;

fn policy(reach: &str) -> String {
    format!(
        "[apps.gateways]\nallow = [{{ publisher = \"acme\" }}]\n\
         install = [{{ publisher = \"acme\", name = \"collector\", version = \"latest\", state = \"running\"{reach} }}]\n\n{RULES}"
    )
}

#[test]
fn an_app_reaches_what_it_was_given_and_not_all_that_its_node_reaches() -> anyhow::Result<()> {
    let mut plant = Plant::new()?;
    plant.apply(&policy(""))?;
    let mut gateway = plant.member("a", "gateway")?;
    let machine = plant.member("b", "machine")?;
    let _store = serve(&machine, STORE)?;
    await_reach(&gateway, &machine, STORE)?;

    let script = ASK.replace("ADDRESS", &overlay(&machine)?.to_string());
    plant.publish(APP, "1.0", &Program::python(&script)?)?;
    await_note(&mut gateway, "nothing")?;
    await_reach(&gateway, &machine, STORE)?;

    plant.apply(&policy(", reach = [\"store/data\"]"))?;
    await_note(&mut gateway, "b")?;
    plant.apply(&policy(""))?;
    await_note(&mut gateway, "nothing")
}
