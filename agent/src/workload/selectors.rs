//! Whether a process is the workload that a registration means. Pure; every selector must hold.

use edgeward_policy::Selectors;

/// What was found out about a process. What is absent matches no selector on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub uid: u32,
    pub gid: u32,
    pub path: Option<String>,
    pub unit: Option<String>,
    pub pod: Option<PodFacts>,
}

/// The pod that a process belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    pub uid: String,
    pub namespace: Option<String>,
    pub service_account: Option<String>,
}

/// Whether everything but the digest of the program holds, which is costly to find out.
pub fn matches_but_digest(selectors: &Selectors, process: &Process) -> bool {
    // A registration that demands nothing is refused where it is read; here it would match everybody.
    if selectors.is_empty() {
        return false;
    }
    let user = selectors.uid.is_none_or(|uid| uid == process.uid);
    let group = selectors.gid.is_none_or(|gid| gid == process.gid);
    user && group
        && same(&selectors.path, &process.path)
        && same(&selectors.unit, &process.unit)
        && matches_pod(selectors, process)
}

/// Whether all of it holds.
pub fn matches(selectors: &Selectors, process: &Process, digest: Option<&str>) -> bool {
    let digest = digest.map(ToOwned::to_owned);
    matches_but_digest(selectors, process) && same(&selectors.digest, &digest)
}

fn matches_pod(selectors: &Selectors, process: &Process) -> bool {
    let Some(wanted) = &selectors.k8s else {
        return true;
    };
    let Some(pod) = &process.pod else {
        return false;
    };
    same(&wanted.pod_uid, &Some(pod.uid.clone()))
        && same(&wanted.namespace, &pod.namespace)
        && same(&wanted.service_account, &pod.service_account)
}

/// What is not demanded holds; what is demanded and not known does not.
fn same(wanted: &Option<String>, found: &Option<String>) -> bool {
    wanted.is_none() || wanted == found
}

#[cfg(test)]
mod tests {
    use edgeward_policy::Pod;

    use super::*;

    fn process() -> Process {
        Process {
            uid: 990,
            gid: 991,
            path: Some("/usr/bin/collector".to_owned()),
            unit: Some("collector.service".to_owned()),
            pod: Some(PodFacts {
                uid: "p".to_owned(),
                namespace: Some("line".to_owned()),
                service_account: None,
            }),
        }
    }

    fn selectors() -> Selectors {
        Selectors {
            uid: Some(990),
            gid: Some(991),
            path: Some("/usr/bin/collector".to_owned()),
            digest: Some("d".to_owned()),
            unit: Some("collector.service".to_owned()),
            k8s: Some(Pod {
                namespace: Some("line".to_owned()),
                service_account: None,
                pod_uid: Some("p".to_owned()),
            }),
        }
    }

    #[test]
    fn one_selector_that_does_not_hold_is_enough_to_refuse() {
        let (process, all) = (process(), selectors());
        assert!(matches(&all, &process, Some("d")));
        assert!(!matches(&all, &process, None));
        assert!(!matches(&all, &process, Some("e")));
        let changes: [fn(&mut Process); 7] = [
            |process| process.uid = 0,
            |process| process.gid = 0,
            |process| process.path = Some("/usr/bin/collector2".to_owned()),
            |process| process.path = None,
            |process| process.unit = None,
            |process| process.pod = None,
            |process| process.pod.as_mut().unwrap().namespace = None,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let mut other = process.clone();
            change(&mut other);
            assert!(!matches(&all, &other, Some("d")), "{index}");
        }
    }

    #[test]
    fn a_service_account_that_is_not_known_matches_none() {
        let account = Selectors {
            k8s: Some(Pod {
                namespace: Some("line".to_owned()),
                service_account: Some("collector".to_owned()),
                pod_uid: None,
            }),
            ..Selectors::default()
        };
        assert!(!matches(&account, &process(), None));
        let mut known = process();
        known.pod.as_mut().unwrap().service_account = Some("collector".to_owned());
        assert!(matches(&account, &known, None));
    }

    #[test]
    fn selectors_that_demand_nothing_match_nobody() {
        assert!(!matches(&Selectors::default(), &process(), None));
        let pods = Selectors {
            k8s: Some(Pod::default()),
            ..Selectors::default()
        };
        assert!(!matches(&pods, &process(), None));
    }
}
