//! Comparing patterns, against every request of a small world.

use super::{Compare, L7, L7Request, Patterns, http, modbus, mqtt};

/// What each pattern fits in the world must agree with what is said of each pair. Where the world is rich enough to
/// tell the pair apart, which it is for the pairs of these tests, `covers` and `meets` are exact.
#[track_caller]
fn assert_compared<P: Compare + std::fmt::Display>(patterns: &[P], fitting: &[Vec<bool>]) {
    let (mut covered, mut met, mut apart) = (0, 0, 0);
    for (one, fits_one) in patterns.iter().zip(fitting) {
        for (other, fits_other) in patterns.iter().zip(fitting) {
            let pairs = || fits_one.iter().zip(fits_other);
            let covers = pairs().all(|(one, other)| *one || !other);
            let meets = pairs().any(|(one, other)| *one && *other);
            assert_eq!(one.covers(other), covers, "{one} covers {other}");
            assert_eq!(one.meets(other), meets, "{one} meets {other}");
            covered += usize::from(covers);
            met += usize::from(meets);
            apart += usize::from(!meets);
        }
    }
    assert!(covered > patterns.len() && met > covered && apart > 0);
}

#[test]
fn http_patterns_compare_as_their_requests_do() {
    let texts = [
        "GET /**",
        "* /**",
        "GET /a/**",
        "POST /a/**",
        "GET /a",
        "* /a/*",
        "GET /*/b",
        "GET /a/b",
        "GET /*",
        "GET /",
        "GET /*/**",
        "GET /a/*/c",
        "GET /*/b/**",
    ];
    let patterns: Vec<http::Pattern> = texts.iter().map(|text| text.parse().unwrap()).collect();
    let words = ["a", "b", "c", "d"];
    let mut paths = vec![String::new()];
    for _ in 0..4 {
        let longer = paths
            .iter()
            .flat_map(|path| words.map(|word| format!("{path}/{word}")));
        let longer: Vec<String> = longer.collect();
        paths.extend(longer);
    }
    let paths: Vec<String> = paths
        .into_iter()
        .map(|path| {
            if path.is_empty() {
                "/".to_owned()
            } else {
                path
            }
        })
        .collect();
    let fitting: Vec<Vec<bool>> = patterns
        .iter()
        .map(|pattern| {
            let requests = paths.iter().flat_map(|path| {
                ["GET", "POST", "PUT"].map(|method| http::Request { method, path })
            });
            requests.map(|request| pattern.fits(&request)).collect()
        })
        .collect();
    assert_compared(&patterns, &fitting);
}

#[test]
fn modbus_patterns_compare_as_their_requests_do() {
    let texts = [
        "fc:1-4",
        "fc:3",
        "fc:3 addr:0-9",
        "fc:1,3 addr:5-12",
        "fc:1-3 addr:0-9 unit:1",
        "fc:3 unit:1",
        "fc:4-6",
        "fc:3 addr:0-4,5-9",
        "fc:1-4 unit:2-3",
        "fc:5 addr:20",
    ];
    let patterns: Vec<modbus::Pattern> = texts.iter().map(|text| text.parse().unwrap()).collect();
    let addresses = (0..24).map(|address| Some([(address, address); 2]));
    let addresses: Vec<_> = addresses.chain([None]).collect();
    let mut requests = Vec::new();
    for function in 1..8 {
        for unit in 0..5 {
            for addresses in &addresses {
                requests.push(modbus::Request {
                    function,
                    unit,
                    addresses: *addresses,
                });
            }
        }
    }
    let fitting: Vec<Vec<bool>> = patterns
        .iter()
        .map(|pattern| {
            requests
                .iter()
                .map(|request| pattern.fits(request))
                .collect()
        })
        .collect();
    assert_compared(&patterns, &fitting);
}

#[test]
fn mqtt_filters_cover_as_their_topics_do() {
    let filters = [
        "#", "a/#", "a/+", "a/b", "+/b", "+/+", "$SYS/#", "$SYS/a", "a", "+",
    ];
    let topics = [
        "a", "b", "a/b", "b/b", "a/c", "a/b/c", "$SYS/a", "$SYS/b", "$SYS", "c/c",
    ];
    for one in filters {
        for other in filters {
            let [one, other] = [one, other]
                .map(|filter| mqtt::Pattern::new(mqtt::Operation::Publish, filter).unwrap());
            let fits =
                |pattern: &mqtt::Pattern, topic| pattern.fits(&mqtt::Request::Publish { topic });
            let covers = topics
                .iter()
                .all(|topic| fits(&one, topic) || !fits(&other, topic));
            assert_eq!(
                Compare::covers(&one, &other),
                covers,
                "{one} covers {other}"
            );
        }
    }
    let publish = mqtt::Pattern::new(mqtt::Operation::Publish, "a/b").unwrap();
    let subscribe = mqtt::Pattern::new(mqtt::Operation::Subscribe, "#").unwrap();
    assert!(!Compare::covers(&subscribe, &publish) && !subscribe.meets(&publish));
}

#[test]
fn a_request_of_another_protocol_fits_no_action() {
    let l7 = L7::Http(vec![Patterns {
        action: "read".to_owned(),
        any_of: vec!["* /**".parse().unwrap()],
    }]);
    let request = L7Request::Mqtt(mqtt::Request::Publish { topic: "a" });
    assert!(l7.actions_of(&request).is_empty());
}
