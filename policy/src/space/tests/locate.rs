//! Where in a diff a single point lies.

use edgeward_identity::{AttestationState, Kind};

use super::world::Point;
use crate::decision::Link;
use crate::labels::matches;
use crate::space::axes::{Axes, Axis, TIERS, class_of};
use crate::space::cells::Members;
use crate::space::joint::Joint;
use crate::space::region::{Changed, Offered, Part};

/// Every part that covers a point; more than one would be a fault.
pub(super) fn parts<'c>(
    changed: &'c [Changed],
    joint: &Joint,
    offered: Offered,
    point: &Point,
) -> Vec<&'c Part> {
    let here = changed
        .iter()
        .filter(|here| here.service == point.service && here.name == point.interface);
    here.flat_map(|here| {
        let parts = here.parts.iter();
        parts.filter(|part| part.offered == offered && covers(here, joint, part, point))
    })
    .collect()
}

fn covers(here: &Changed, joint: &Joint, part: &Part, point: &Point) -> bool {
    let mut cells = part.who.iter().map(|index| &here.cells[*index]);
    let is_meant = cells.any(|cell| match &cell.members {
        Members::Operator(name) => {
            point.subject.kind() == Kind::Operator && point.subject.name() == name
        }
        Members::Device(_) => false,
        Members::Node(groups) => {
            point.subject.kind() == Kind::Node
                && here.relevant.iter().all(|group| {
                    let is_in = matches(&joint.groups[*group].matches, &point.labels);
                    is_in == groups.contains(group)
                })
        }
    });
    is_meant
        && part
            .atoms
            .iter()
            .all(|(axis, atoms)| atoms.contains(&atom(&here.axes, *axis, point)))
}

fn atom(axes: &Axes, axis: Axis, point: &Point) -> usize {
    let age =
        |at: edgeward_identity::Timestamp| u64::try_from(point.now.since(at).as_millis()).unwrap();
    match axis {
        Axis::Action => axes.actions.iter().position(|a| a == point.action).unwrap(),
        Axis::State => AttestationState::ALL
            .iter()
            .position(|state| *state == point.standing.state)
            .unwrap(),
        Axis::Tier => TIERS
            .iter()
            .position(|tier| *tier == point.standing.tier)
            .unwrap(),
        Axis::Stated => usize::from(point.stated.is_some()),
        Axis::Profile(index) => {
            let (name, versions) = &axes.profiles[index];
            let stated = point
                .stated
                .iter()
                .flatten()
                .find(|label| label.name() == name);
            stated.map_or(0, |label| {
                let version = versions.iter().position(|version| version == label);
                version.map_or(versions.len() + 1, |version| version + 1)
            })
        }
        Axis::Running(_) => 0,
        Axis::Link => match point.link {
            Link::Online => 0,
            Link::Offline { last_heartbeat } => class_of(&axes.links, age(last_heartbeat)),
        },
        Axis::Pass => point
            .standing
            .last_pass
            .map_or(0, |pass| class_of(&axes.passes, age(pass))),
        Axis::Time => axes
            .times
            .atom(point.now)
            .expect("every combination was met"),
        Axis::Approval(_) => 0,
    }
}
