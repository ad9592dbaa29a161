//! What a release holds, and whether a node would refuse it for that.

use edgeward_apps::Mode;
use edgeward_apps::admit::Deny;

use super::super::PublishedRelease;
use super::Question;

impl Question<'_> {
    /// Whether a rule denies a file in it, or somebody revoked one. Rules that only observe keep nothing from a node that
    /// it would run.
    pub(super) fn denies_in(&self, release: &PublishedRelease) -> bool {
        let content = &release.content;
        let by_rule = |deny: &Deny| match deny {
            Deny::Digest { digest } => content.has(digest),
            Deny::Publisher { .. } => false,
        };
        let enforced = self.rules.mode == Mode::Enforce;
        enforced && self.rules.deny.iter().any(by_rule) || content.has_any(self.denied)
    }
}
