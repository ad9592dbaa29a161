//! What two policies have in common to speak of: groups by what they match, windows by what they say.

use std::collections::BTreeMap;

use crate::ast::LabelSets;
use crate::window::Window;

/// Groups and windows of both sides, each content once.
#[derive(Debug, Default)]
pub(super) struct Joint {
    pub(super) groups: Vec<JointGroup>,
    by_content: BTreeMap<(Option<usize>, LabelSets), usize>,
    pub(super) windows: Vec<Window>,
}

#[derive(Debug)]
pub(super) struct JointGroup {
    /// As the side calls it that was added last.
    pub(super) name: String,
    pub(super) matches: LabelSets,
    /// Of devices, not of nodes: the group of nodes that vouch for them.
    pub(super) via: Option<usize>,
}

impl Joint {
    pub(super) fn group(&mut self, name: &str, matches: &LabelSets, via: Option<usize>) -> usize {
        let next = self.groups.len();
        let content = (via, matches.clone());
        let index = *self.by_content.entry(content).or_insert(next);
        match self.groups.get_mut(index) {
            Some(known) => name.clone_into(&mut known.name),
            None => self.groups.push(JointGroup {
                name: name.to_owned(),
                matches: matches.clone(),
                via,
            }),
        }
        index
    }

    pub(super) fn window(&mut self, window: &Window) -> usize {
        let same = |known: &Window| {
            known.tz == window.tz
                && known.days == window.days
                && (known.from, known.to) == (window.from, window.to)
        };
        let known = self.windows.iter().position(same);
        known.unwrap_or_else(|| {
            self.windows.push(window.clone());
            self.windows.len() - 1
        })
    }
}
