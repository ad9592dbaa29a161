//! The tests in policy files, put to the real engine: a node of the target's group, and a subject in the named groups.

use std::sync::Arc;

use edgeward_identity::{AttestationState, Kind, SpiffeId, Timestamp, TrustDomain};

use super::resolve::known_actions;
use crate::ast::{TargetName, TestDef};
use crate::compile::{CompiledPolicy, FleetIndex, IndexedNode, Interface};
use crate::decision::{Decision, Link, Request, Standing, Subject, Target};
use crate::diagnostic::{Code, Diagnostics, suggest};
use crate::engine::Engine;
use crate::l7::written::WrittenRequest;
use crate::slice::{ActionId, InterfaceIndex, Slice, SliceApproval};
use crate::source::{Place, Placed};

mod subject;

/// The time of a test that names none: before every `until`; windows then cannot be evaluated.
const NO_TIME: Timestamp = Timestamp::from_millis(0);

/// Runs every test and says how many failed.
pub(super) fn run<'t>(
    policy: &CompiledPolicy,
    tests: impl Iterator<Item = &'t TestDef>,
    found: &mut Diagnostics<'_>,
) -> usize {
    let mut failed = 0;
    for test in tests {
        let before = found.count();
        let passed = match decide(policy, test, found) {
            Some(decision) => judge(test, &decision, found),
            None => false,
        };
        // However it comes, a test that did not pass never leaves the policy without an error.
        if !passed && found.count() == before {
            let message = format!("test `{}` could not be run", test.name);
            found.error(test.at, Code::TestInvalid, message);
        }
        failed += usize::from(!passed);
    }
    failed
}

fn decide(
    policy: &CompiledPolicy,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<Decision> {
    let target = target_of(policy, test, found)?;
    let asked = asked(policy, target, test, found)?;
    let domain = TrustDomain::new("test.invalid").ok()?;
    let id = |kind, name: &str| SpiffeId::new(&domain, kind, name).ok();
    let (node, asker) = (id(Kind::Node, "target")?, id(Kind::Node, "subject")?);
    let groups = subject::groups_of(policy, test, found)?;
    let who = match subject::operator_of(policy, test, found)? {
        Some(name) => id(Kind::Operator, &name)?,
        None if groups.are_devices() => id(Kind::Device, "subject")?,
        None => asker.clone(),
    };
    let profiles = subject::profiles_of(policy, test, &groups, found)?;
    let tier = test
        .tier
        .unwrap_or_else(|| subject::tier_of(policy, &groups.nodes));
    let mut nodes = vec![IndexedNode::new(node.clone(), tier, [target.on].into())];
    let travels = groups.are_devices() && target.is_open_to_guests();
    match groups.are_devices() && !travels {
        // The node that the device hangs on is the one it asks.
        true => subject::vouching(policy, target, &groups, test, found)?
            .into_iter()
            .for_each(|group| nodes.iter_mut().for_each(|node| node.join(group))),
        // The node itself, or the one that the device comes through.
        false => nodes.push(IndexedNode::new(asker.clone(), tier, groups.nodes.clone())),
    }
    let fleet = FleetIndex::of_indexed(policy, nodes);
    let end = Timestamp::from_millis(u64::MAX);
    let mut slice = policy.slice_with_everybody(&fleet, &node, end)?;
    if groups.are_devices() {
        subject::hang(policy, &groups, (&who, &asker), target, &mut slice);
    }
    if test.when.is_none() {
        for window in &mut slice.windows {
            window.tz = String::new();
        }
    }
    if test.approved {
        slice.approvals = approvals_for(&who, &slice);
    }
    let now = test.when.unwrap_or(NO_TIME);
    let last_pass = now.minus(test.age.as_duration());
    // Without a time of its own a test still has an age: it then plays far enough from the epoch.
    let now = last_pass.plus(test.age.as_duration());
    let engine = Engine::new(Arc::new(slice)).ok()?;
    let standing = Standing {
        state: test.state.unwrap_or(match groups.are_devices() {
            true => AttestationState::Vouched,
            false => AttestationState::Trusted,
        }),
        tier: Some(tier),
        last_pass: Some(last_pass),
        profiles,
        runs: test.runs.as_ref().map(|runs| engine.wants().met_by(runs)),
    };
    let interface = engine.interface(&target.service, &target.name)?;
    Some(ask(&engine, &who, standing, interface, &asked, now))
}

fn ask(
    engine: &Engine,
    who: &SpiffeId,
    standing: Standing,
    interface: InterfaceIndex,
    asked: &Asked,
    now: Timestamp,
) -> Decision {
    let (subject, link) = (Subject::Id(who), Link::Online);
    match asked {
        Asked::Action(action) => engine.decide(&Request {
            subject,
            standing,
            target: Target::Interface(interface),
            action: *action,
            link,
            now,
        }),
        Asked::Request(request) => {
            let request = request.as_request();
            engine.decide_l7(subject, standing, interface, &request, link, now)
        }
    }
}

/// What a test asks for.
enum Asked {
    Action(ActionId),
    Request(WrittenRequest),
}

/// Every approval that a rule of the slice asks for.
fn approvals_for(who: &SpiffeId, slice: &Slice) -> Vec<SliceApproval> {
    let rows = slice
        .interfaces
        .iter()
        .flat_map(|interface| &interface.rows);
    rows.filter(|row| row.approval)
        .map(|row| SliceApproval {
            rule: Arc::clone(&row.rule),
            subject: who.clone(),
            until: slice.expires,
        })
        .collect()
}

fn target_of<'p>(
    policy: &'p CompiledPolicy,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<&'p Interface> {
    let TargetName::Interface { service, interface } = &test.to.value else {
        return None;
    };
    let mut known = policy.interfaces.iter();
    let target = known.find(|known| known.service == *service && known.name == *interface);
    if target.is_none() {
        let names: Vec<String> = policy
            .interfaces
            .iter()
            .map(|known| format!("{}/{}", known.service, known.name))
            .collect();
        let name = format!("{service}/{interface}");
        found.error_with_help(
            test.to.at,
            Code::UnknownName,
            format!("interface `{name}` is not defined"),
            suggest(&name, names.iter().map(String::as_str)),
        );
    }
    target
}

/// What is asked for and the rule that a test names are there.
fn asked(
    policy: &CompiledPolicy,
    target: &Interface,
    test: &TestDef,
    found: &mut Diagnostics<'_>,
) -> Option<Asked> {
    if let Some(by) = &test.by
        && !policy.rules.iter().any(|rule| *rule.id == *by.value)
    {
        found.error_with_help(
            by.at,
            Code::UnknownName,
            format!("rule `{}` is not defined", by.value),
            suggest(&by.value, policy.rules.iter().map(|rule| &*rule.id)),
        );
        return None;
    }
    let named = match &test.action {
        None => None,
        Some(name) => {
            let mut names = target.actions().into_iter();
            let position = names.position(|known| known == name.value);
            let Some(action) = position.and_then(|index| u8::try_from(index).ok()) else {
                found.error_with_help(
                    name.at,
                    Code::UnknownAction,
                    format!("unknown action `{}`", name.value),
                    known_actions(target),
                );
                return None;
            };
            Some((ActionId(action), name.at))
        }
    };
    match &test.l7 {
        None => named.map(|(action, _)| Asked::Action(action)),
        Some(text) => request(target, text, named, found).map(Asked::Request),
    }
}

/// The request, which must fit the action where the test names one.
fn request(
    target: &Interface,
    text: &Placed<String>,
    named: Option<(ActionId, Place)>,
    found: &mut Diagnostics<'_>,
) -> Option<WrittenRequest> {
    let name = format!("{}/{}", target.service, target.name);
    let Some(l7) = &target.l7 else {
        let message = format!("{name} has no l7, so no request can be told from another");
        found.error_with_help(
            text.at,
            Code::TestInvalid,
            message,
            "write do = \"connect\"",
        );
        return None;
    };
    let request = match WrittenRequest::parse(l7, &text.value) {
        Ok(request) => request,
        Err(bad) => {
            found.error_with_help(text.at, Code::BadValue, bad.found, bad.expected);
            return None;
        }
    };
    let actions = l7.actions_of(&request.as_request());
    if let Some((action, at)) = named
        && !actions.contains(action)
    {
        let names = l7.names();
        let fits = actions.iter();
        let fits: Vec<&str> = fits
            .filter_map(|action| names.get(usize::from(action.0)).copied())
            .collect();
        let help = match fits.is_empty() {
            true => "it fits no action: leave `do` out, and expect a denial".to_owned(),
            false => format!("it fits {}", fits.join(", ")),
        };
        let message = format!("the request {:?} does not fit the action", text.value);
        found.error_with_help(at, Code::TestInvalid, message, help);
        return None;
    }
    Some(request)
}

fn judge(test: &TestDef, decision: &Decision, found: &mut Diagnostics<'_>) -> bool {
    let by_fits = test
        .by
        .as_ref()
        .is_none_or(|by| decision.rule.as_deref() == Some(by.value.as_str()));
    let because_fits = test
        .because
        .is_none_or(|because| because == decision.reason);
    if decision.verdict == test.expect && by_fits && because_fits {
        return true;
    }
    let mut got = format!("got {}, because {}", decision.verdict, decision.reason);
    if let Some(rule) = &decision.rule {
        got.push_str(&format!(", by rule `{rule}`"));
    }
    if let Some(nearest) = &decision.nearest {
        got.push_str(&format!("; nearest is rule `{nearest}`"));
    }
    if test.when.is_none() && decision.reason == crate::decision::Reason::Window {
        got.push_str("; a test of a window names its time: at = 2027-01-31T00:00:00Z");
    }
    let mut wanted = format!("expected {}", test.expect);
    if let Some(by) = &test.by {
        wanted.push_str(&format!(" by rule `{}`", by.value));
    }
    if let Some(because) = test.because {
        wanted.push_str(&format!(" because {because}"));
    }
    found.error_with_help(
        test.at,
        Code::TestFailed,
        format!("test `{}` failed: {wanted}", test.name),
        got,
    );
    false
}
