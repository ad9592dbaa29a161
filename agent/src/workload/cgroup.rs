//! What the path of a process's control group says: its systemd unit, its Kubernetes pod. Pure; reads what
//! `/proc/PID/cgroup` holds (cgroups(7)).
//!
//! Only names that the system's own manager or the kubelet gave count, never one that a user may give: below the first
//! unit on the path everything belongs to whoever owns that unit.

/// Longest text that is read, in bytes.
pub const MAX_CGROUP_BYTES: usize = 64 * 1024;
/// Kinds of units that processes live in.
const UNIT_KINDS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
/// Characters of a pod's UID: a UUID, or for a static pod 32 hex digits.
const POD_UID_CHARACTERS: [usize; 2] = [36, 32];

/// Where a process belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Unit of the system manager.
    pub unit: Option<String>,
    /// UID of the pod.
    pub pod_uid: Option<String>,
    /// The path in the unified hierarchy, from the root that the agent sees.
    pub unified: Option<String>,
}

/// Reads `/proc/PID/cgroup`, the path of the unified hierarchy, too. What it does not say, or says in another form, is absent: then no selector on it matches.
pub fn read(text: &str) -> Place {
    let unified = hierarchy(text, "");
    // In the hybrid layout systemd keeps both alike; where only the old one has it, that counts.
    let path = match (unified, hierarchy(text, "name=systemd")) {
        (Some("/") | None, Some(systemd)) => Some(systemd),
        (unified, _) => unified,
    };
    let mut place = Place {
        unified: unified.filter(|path| is_ours(path)).map(ToOwned::to_owned),
        ..Place::default()
    };
    if let Some(path) = path.filter(|path| is_ours(path)) {
        let mut parts = path.split('/').skip(1);
        place.unit = unit_of(&mut parts.clone());
        place.pod_uid = pod_of(&mut parts);
    }
    place
}

/// The path in one hierarchy: the unified one has no name.
fn hierarchy<'t>(text: &'t str, wanted: &str) -> Option<&'t str> {
    if text.len() > MAX_CGROUP_BYTES {
        return None;
    }
    text.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let fits = match wanted {
            "" => number == "0" && controllers.is_empty(),
            named => controllers == named,
        };
        fits.then_some(path)
    })
}

/// A path that leads out of our own root is seen from outside its namespace: its names are not ours to judge.
fn is_ours(path: &str) -> bool {
    path.starts_with('/') && path.split('/').all(|part| part != "..")
}

/// The first part that is no slice, as systemd itself reads it.
fn unit_of<'p>(parts: &mut impl Iterator<Item = &'p str>) -> Option<String> {
    let unit = parts.find(|part| !part.ends_with(".slice"))?;
    let kind = UNIT_KINDS.iter().find_map(|kind| unit.strip_suffix(kind));
    kind.filter(|stem| !stem.is_empty())?;
    Some(unit.to_owned())
}

/// The pod, directly below the kubelet's root: `kubepods[.slice]/…/…pod<uid>[.slice]/…`, both cgroup drivers.
fn pod_of<'p>(parts: &mut impl Iterator<Item = &'p str>) -> Option<String> {
    if !matches!(parts.next()?, "kubepods" | "kubepods.slice") {
        return None;
    }
    // Either the pod or its quality of service comes next.
    let second = parts.next()?;
    let quality = ["burstable", "besteffort"]
        .iter()
        .any(|quality| second == *quality || *second == format!("kubepods-{quality}.slice"));
    let pod = if quality { parts.next()? } else { second };
    let uid = match pod.strip_suffix(".slice") {
        // The systemd driver writes _ for -.
        Some(slice) => slice.rsplit_once("-pod")?.1.replace('_', "-"),
        None => pod.strip_prefix("pod")?.to_owned(),
    };
    let good = POD_UID_CHARACTERS.contains(&uid.len())
        && uid
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'-');
    good.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "6b2b2f6e-0d1c-4c7e-9a53-0f6f8a1f2b3c";

    fn unit(path: &str) -> Option<String> {
        read(&format!("0::{path}\n")).unit
    }

    fn pod(path: &str) -> Option<String> {
        read(&format!("0::{path}\n")).pod_uid
    }

    #[test]
    fn a_unit_that_a_user_named_is_not_the_systems() {
        let user = "/user.slice/user-1000.slice/user@1000.service/app.slice/collector.service";
        assert_eq!(unit(user).as_deref(), Some("user@1000.service"));
        let own = "/system.slice/own.service/collector.service";
        assert_eq!(unit(own).as_deref(), Some("own.service"));
        assert_eq!(unit("/mine/collector.service"), None);
        assert_eq!(unit("/../system.slice/collector.service"), None);
    }

    #[test]
    fn a_group_of_an_application_is_one_of_the_unified_hierarchy_only() {
        let unified = |text: &str| read(text).unified;
        let hybrid = "1:name=systemd:/edgeward/apps/a\n0::/\n";
        assert_eq!(unified(hybrid).as_deref(), Some("/"));
        assert_eq!(unified("1:name=systemd:/edgeward/apps/a\n"), None);
        assert_eq!(unified("0::/../edgeward/apps/a\n"), None);
        let own = unified("4:memory:/x\n0::/edgeward/apps/a\n");
        assert_eq!(own.as_deref(), Some("/edgeward/apps/a"));
    }

    #[test]
    fn what_is_no_path_of_a_unit_names_none() {
        for path in [
            "/",
            "",
            "/system.slice",
            "/.service",
            "/-.slice/x.slice",
            "system.slice/a.service",
        ] {
            assert_eq!(unit(path), None, "{path}");
        }
        for text in [
            "",
            "\n",
            "0:",
            "0::",
            "::",
            "12:cpu:/system.slice/a.service",
        ] {
            assert_eq!(read(text), Place::default(), "{text:?}");
        }
        let long = format!("0::/system.slice/{}.service", "a".repeat(MAX_CGROUP_BYTES));
        assert_eq!(read(&long), Place::default());
    }

    #[test]
    fn the_unit_is_the_first_part_that_is_no_slice() {
        for (path, expected) in [
            ("/system.slice/collector.service", "collector.service"),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                "getty@tty1.service",
            ),
            ("/init.scope", "init.scope"),
            (
                "/user.slice/user-0.slice/session-3.scope",
                "session-3.scope",
            ),
        ] {
            assert_eq!(unit(path).as_deref(), Some(expected), "{path}");
        }
        let hybrid = "12:cpu,cpuacct:/\n1:name=systemd:/system.slice/a.service\n0::/\n";
        assert_eq!(read(hybrid).unit.as_deref(), Some("a.service"));
    }

    #[test]
    fn a_pod_is_one_that_the_kubelet_made() {
        let under = UID.replace('-', "_");
        for path in [
            format!(
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-0.scope"
            ),
            format!("/kubepods.slice/kubepods-pod{under}.slice/crio-0.scope"),
            format!("/kubepods/besteffort/pod{UID}/0a"),
            format!("/kubepods/pod{UID}/0a"),
        ] {
            assert_eq!(pod(&path).as_deref(), Some(UID), "{path}");
        }
        for path in [
            format!("/user.slice/user-1000.slice/kubepods/pod{UID}/0a"),
            format!("/kubepods/mine/pod{UID}/0a"),
            format!("/kubepods/burstable/x/pod{UID}"),
            format!("/kubepodsx/pod{UID}"),
            "/kubepods/pod../0a".to_owned(),
            "/kubepods".to_owned(),
        ] {
            assert_eq!(pod(&path), None, "{path}");
        }
    }
}
