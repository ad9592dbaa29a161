//! Whether a process is the workload that a registration means. Pure; every selector must hold.

use std::collections::BTreeSet;
use std::sync::Arc;

use edgeward_apps::Digest;
use edgeward_policy::Selectors;

/// What was found out about a process. What is absent matches no selector on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub uid: u32,
    pub gid: u32,
    pub path: Option<String>,
    pub unit: Option<String>,
    pub pod: Option<PodFacts>,
    /// The signed application in whose control group it is, as whose user.
    pub app: Option<AppFacts>,
}

/// An application that the node started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFacts {
    /// `publisher/name`.
    pub name: String,
    /// SHA-256 of each of its files.
    pub files: Arc<BTreeSet<Digest>>,
}

/// An application as it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Path of its control group in the unified hierarchy.
    pub cgroup: String,
    pub uid: u32,
    pub facts: AppFacts,
}

/// The application that a process of this user in this group belongs to. Only the machine's root moves processes into
/// a group, or makes another below it.
pub fn launched_as(launched: &[Launched], cgroup: Option<&str>, uid: u32) -> Option<AppFacts> {
    let cgroup = cgroup?;
    let mut launched = launched.iter();
    let found = launched.find(|app| app.cgroup == cgroup && app.uid == uid)?;
    Some(found.facts.clone())
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
        && selectors.app.as_ref().is_none_or(|wanted| {
            let app = process.app.as_ref();
            app.is_some_and(|app| app.name == *wanted)
        })
}

/// Whether all of it holds.
pub fn matches(selectors: &Selectors, process: &Process, digest: Option<&str>) -> bool {
    // What an application was made to run that is not of its publisher is not the application.
    let own = |app: &AppFacts| digest.is_some_and(|digest| app.has(digest));
    let is_own = selectors.app.is_none() || process.app.as_ref().is_some_and(own);
    let digest = digest.map(ToOwned::to_owned);
    matches_but_digest(selectors, process) && is_own && same(&selectors.digest, &digest)
}

/// Whether the digest of the program must be found out.
pub fn asks_digest(selectors: &Selectors) -> bool {
    selectors.digest.is_some() || selectors.app.is_some()
}

impl AppFacts {
    fn has(&self, digest: &str) -> bool {
        digest
            .parse()
            .is_ok_and(|digest| self.files.contains(&digest))
    }
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
            app: Some(AppFacts {
                name: "acme/collector".to_owned(),
                files: Arc::new(BTreeSet::from([Digest::of(b"d")])),
            }),
        }
    }

    fn d() -> String {
        Digest::of(b"d").to_string()
    }

    fn selectors() -> Selectors {
        Selectors {
            uid: Some(990),
            gid: Some(991),
            path: Some("/usr/bin/collector".to_owned()),
            digest: Some(d()),
            unit: Some("collector.service".to_owned()),
            k8s: Some(Pod {
                namespace: Some("line".to_owned()),
                service_account: None,
                pod_uid: Some("p".to_owned()),
            }),
            app: Some("acme/collector".to_owned()),
        }
    }

    #[test]
    fn one_selector_that_does_not_hold_is_enough_to_refuse() {
        let (process, all) = (process(), selectors());
        assert!(matches(&all, &process, Some(&d())));
        assert!(!matches(&all, &process, None));
        assert!(!matches(&all, &process, Some("e")));
        let changes: [fn(&mut Process); 9] = [
            |process| process.app = None,
            |process| process.app.as_mut().unwrap().name = "acme/collector2".to_owned(),
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
            assert!(!matches(&all, &other, Some(&d())), "{index}");
        }
    }

    #[test]
    fn an_application_is_only_what_its_publisher_signed() {
        let app = Selectors {
            app: Some("acme/collector".to_owned()),
            ..Selectors::default()
        };
        assert!(asks_digest(&app) && !asks_digest(&Selectors::default()));
        let other = Digest::of(b"a shell that it unpacked").to_string();
        for digest in [None, Some(other.as_str()), Some("d"), Some("")] {
            assert!(!matches(&app, &process(), digest), "{digest:?}");
        }
        assert!(matches(&app, &process(), Some(&d())));
    }

    #[test]
    fn an_application_is_known_by_its_own_group_and_its_own_user() {
        let facts = process().app.unwrap();
        let launched = [Launched {
            cgroup: "/edgeward/apps/a".to_owned(),
            uid: 61_184,
            facts: facts.clone(),
        }];
        let known = |cgroup, uid| launched_as(&launched, cgroup, uid);
        assert_eq!(known(Some("/edgeward/apps/a"), 61_184), Some(facts));
        for (cgroup, uid) in [
            (Some("/edgeward/apps/a"), 61_185),
            (Some("/edgeward/apps/a/b"), 61_184),
            (Some("/edgeward/apps"), 61_184),
            (Some("/"), 61_184),
            (None, 61_184),
        ] {
            assert_eq!(known(cgroup, uid), None, "{cgroup:?}");
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
