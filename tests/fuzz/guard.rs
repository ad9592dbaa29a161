//! Targets for what the guard of applications is told, and what it tells.

use edgeward_guard::book::{Book, Mode, Verdict};
use edgeward_guard::control::{Ended, Lines, Order, Run, Told, line};
use edgeward_guard::digest::Digest;
use edgeward_guard::launch::order;
use edgeward_guard::level::Level;

/// Cut anywhere, the same lines come out.
pub fn lines(bytes: &[u8]) {
    let (left, right) = bytes.split_at(bytes.len() / 2);
    let mut whole = Lines::default();
    let mut halves = Lines::default();
    let taken = whole.push(bytes).is_ok();
    assert_eq!(
        taken,
        halves.push(left).is_ok() && halves.push(right).is_ok()
    );
    loop {
        let (one, other) = (whole.take_line::<Told>(), halves.take_line::<Told>());
        match (one, other) {
            (None, None) => return,
            (Some(one), Some(other)) => assert_eq!(one.ok(), other.ok()),
            (one, other) => panic!("{one:?} {other:?}"),
        }
    }
}

pub fn all_told() -> Vec<Vec<u8>> {
    let name = || "acme@collector".to_owned();
    let told = [
        Told::Beat,
        Told::Holds(7),
        Told::Here {
            level: Level::Fanotify,
            lacks: vec!["kernel".to_owned()],
            runs: vec![Run {
                name: name(),
                what: "2.3".to_owned(),
                pid: 1,
                lacks: Vec::new(),
            }],
            shut: false,
        },
        Told::Ended {
            name: name(),
            how: Ended {
                code: None,
                signal: Some(9),
            },
        },
    ];
    told.iter().filter_map(|told| line(told).ok()).collect()
}

/// What is taken is said again as it was.
pub fn told_order(bytes: &[u8]) {
    let mut lines = Lines::default();
    if lines.push(bytes).is_err() {
        return;
    }
    while let Some(order) = lines.take_line::<Order>() {
        let Ok(order) = order else { continue };
        let mut again = Lines::default();
        again.push(&line(&order).unwrap()).unwrap();
        assert_eq!(again.take_line::<Order>().unwrap().unwrap(), order);
    }
}

pub fn book(bytes: &[u8]) {
    let Ok(book) = serde_json::from_slice::<Book>(bytes) else {
        return;
    };
    // A book that enforces lets nothing through that it does not list, one that observes refuses nothing.
    match (book.mode(), book.verdict(&Digest::new([0; 32]))) {
        (Mode::Enforce, Verdict::Observe(_)) | (Mode::Observe, Verdict::Deny(_)) => {
            panic!("{book:?}")
        }
        _ => {}
    }
}

pub fn books() -> Vec<Vec<u8>> {
    let files = [(Digest::new([7; 32]), "acme/collector".to_owned())];
    let book = Book::new(1, Mode::Enforce, files.into()).unwrap();
    let text = serde_json::to_vec(&book).unwrap();
    vec![text, line(&Order::Book(book)).unwrap()]
}

pub fn launch_order(bytes: &[u8]) {
    let Ok(order) = order::Order::parse(bytes) else {
        return;
    };
    // Whatever is taken can be handed to the kernel, and stays where it belongs.
    assert!(order.uid != 0 && order.gid != 0 && order.program.is_relative());
    for text in order.env.iter().chain(&order.args) {
        assert!(!text.to_bytes().contains(&0));
    }
    assert!(
        !order
            .env
            .iter()
            .any(|text| text.to_bytes().starts_with(b"LD_"))
    );
}

pub fn launch_orders() -> Vec<Vec<u8>> {
    let order = format!(
        r#"{{"tree":"/apps/x","program":"bin/x","digest":"{}","args":["-c"],"env":{{"A":"b"}},"uid":990,"gid":990,"cgroup":"/sys/fs/cgroup/a","state":"/s","writable":["d"],"workload":"/run/e/w.sock","limits":{{"tasks":4}}}}"#,
        "07".repeat(32)
    );
    vec![order.into_bytes()]
}
