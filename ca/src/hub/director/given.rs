//! What nodes were given, for people.

use edgeward_apps::{AppName, Version};

use super::super::Hub;

impl Hub {
    /// The highest version of each app that the director gave a node, as it is stored.
    pub(crate) fn apps_given(&self, node: &str) -> Vec<(AppName, Version)> {
        let remembered = self.director.remembered.lock();
        let given = remembered.given.get(node).into_iter().flatten();
        given
            .map(|(app, given)| (app.clone(), given.highest.clone()))
            .collect()
    }
}
