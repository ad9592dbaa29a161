//! The table itself.

use super::{Class, Role};

/// One row: a method on a path, and its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// `POST` for gRPC methods.
    pub method: &'static str,
    /// As the router knows it, parameters in braces; `/package.Service/Method` for gRPC.
    pub path: &'static str,
    pub callers: &'static [Class],
}

const NOBODY_KNOWN: &[Class] = &[Class::Anonymous];
const NODES: &[Class] = &[Class::Node];
const EVERYBODY: &[Class] = &Class::ALL;
const ADMINS: &[Class] = &[Class::Operator(Role::Admin), Class::ApiKey(Role::Admin)];
/// Those who sign what they send, which only a certificate's key can.
const SIGNING_OPERATORS: &[Class] = &[
    Class::Operator(Role::Admin),
    Class::Operator(Role::Operator),
];
const OPERATORS: &[Class] = &[
    Class::Operator(Role::Admin),
    Class::Operator(Role::Operator),
    Class::ApiKey(Role::Admin),
    Class::ApiKey(Role::Operator),
];
const READERS: &[Class] = &[
    Class::Operator(Role::Admin),
    Class::Operator(Role::Operator),
    Class::Operator(Role::Auditor),
    Class::ApiKey(Role::Admin),
    Class::ApiKey(Role::Operator),
    Class::ApiKey(Role::Auditor),
];

/// Every route of port 7443.
pub const ROUTES: &[Route] = &[
    // A machine that enrols has no identity yet; one that has must not become another.
    row("POST", "/edgeward.v1.Enrolment/Enrol", NOBODY_KNOWN),
    row("POST", "/edgeward.v1.Session/Attach", NODES),
    row("POST", "/edgeward.v1.Relay/Carry", NODES),
    row("POST", "/edgeward.v1.Apps/Metadata", NODES),
    row("POST", "/edgeward.v1.Apps/Manifest", NODES),
    row("POST", "/edgeward.v1.Apps/Chunks", NODES),
    row("POST", "/edgeward.v1.Workloads/IssueX509", NODES),
    row("POST", "/edgeward.v1.Workloads/IssueJwt", NODES),
    row("GET", "/api/openapi.json", EVERYBODY),
    row("GET", "/api/v1/status", READERS),
    row("GET", "/api/v1/tokens", READERS),
    row("POST", "/api/v1/tokens", OPERATORS),
    row("DELETE", "/api/v1/tokens/{id}", OPERATORS),
    row("GET", "/api/v1/nodes", READERS),
    row("GET", "/api/v1/nodes/{name}", READERS),
    row("GET", "/api/v1/nodes/{name}/evidence", READERS),
    row("GET", "/api/v1/nodes/{name}/result", READERS),
    // Public keys: whoever was shown a result may check it.
    row("GET", "/api/v1/results/keys", EVERYBODY),
    row("POST", "/api/v1/nodes/{name}/approve", OPERATORS),
    row("POST", "/api/v1/nodes/{name}/quarantine", OPERATORS),
    row("POST", "/api/v1/nodes/{name}/release", OPERATORS),
    row("POST", "/api/v1/nodes/{name}/replace-tpm", OPERATORS),
    row("DELETE", "/api/v1/nodes/{name}", OPERATORS),
    row("POST", "/api/v1/policies/check", READERS),
    row("POST", "/api/v1/policies", SIGNING_OPERATORS),
    row("GET", "/api/v1/policies", READERS),
    row("GET", "/api/v1/policies/current", READERS),
    row("GET", "/api/v1/policies/{number}", READERS),
    row("GET", "/api/v1/policies/stage", READERS),
    row("POST", "/api/v1/policies/stage/pause", OPERATORS),
    row("POST", "/api/v1/policies/stage/resume", OPERATORS),
    row("POST", "/api/v1/policies/stage/abort", SIGNING_OPERATORS),
    row("POST", "/api/v1/policies/rollback", SIGNING_OPERATORS),
    row("GET", "/api/v1/approvals", READERS),
    row("GET", "/api/v1/approvals/rules/{rule}", READERS),
    row("POST", "/api/v1/approvals", SIGNING_OPERATORS),
    row("DELETE", "/api/v1/approvals/{number}", OPERATORS),
    row("GET", "/api/v1/break-glass", READERS),
    // What is signed here works when nobody can be asked any more.
    row("POST", "/api/v1/break-glass", ADMINS),
    row("DELETE", "/api/v1/break-glass/{number}", OPERATORS),
    row(
        "POST",
        "/api/v1/break-glass/{number}/acknowledge",
        OPERATORS,
    ),
    row("GET", "/api/v1/ca", READERS),
    row("POST", "/api/v1/ca/rotate", ADMINS),
    row("POST", "/api/v1/ca/director", ADMINS),
    row("POST", "/api/v1/ca/authorities/{key}/taint", ADMINS),
    row("POST", "/api/v1/ca/authorities/{key}/retire", ADMINS),
    row("GET", "/api/v1/publishers", READERS),
    // Whoever puts the first root in force decides who may publish; each after it needs signatures of the one before.
    row("PUT", "/api/v1/publishers/metadata", ADMINS),
    row("POST", "/api/v1/publishers/online-key", ADMINS),
    row("GET", "/api/v1/apps", READERS),
    row("POST", "/api/v1/apps", OPERATORS),
    row("GET", "/api/v1/apps/{publisher}/{name}/{version}", READERS),
    row("POST", "/api/v1/apps/missing", OPERATORS),
    row("GET", "/api/v1/apps/chunks/{sha256}", OPERATORS),
    row("PUT", "/api/v1/apps/chunks/{sha256}", OPERATORS),
    row("GET", "/api/v1/apps/manifests/{sha256}", READERS),
    row("PUT", "/api/v1/apps/manifests/{sha256}", OPERATORS),
    row("GET", "/api/v1/apps/metadata/{name}", READERS),
    row(
        "POST",
        "/api/v1/apps/{publisher}/{name}/{version}/revoke",
        OPERATORS,
    ),
    row("POST", "/api/v1/apps/revoke", OPERATORS),
    row("GET", "/api/v1/apps/revoked/{digest}", READERS),
    row("POST", "/api/v1/apps/{publisher}/{name}/back", OPERATORS),
    row("GET", "/api/v1/nodes/{name}/director", OPERATORS),
    row("GET", "/api/v1/audit/events", READERS),
    row("GET", "/api/v1/audit/events/{index}", READERS),
    row("GET", "/api/v1/audit/events/{index}/proof", READERS),
    row("GET", "/api/v1/audit/stats", READERS),
    row("GET", "/api/v1/audit/coverage", READERS),
    row("POST", "/api/v1/audit/coverage/acknowledge", OPERATORS),
    row("GET", "/api/v1/audit/log/checkpoint", READERS),
    row("GET", "/api/v1/audit/log/tile/{*tile}", READERS),
    row("GET", "/api/v1/audit/log/key", READERS),
    row("GET", "/api/v1/audit/alerts", READERS),
    row("GET", "/api/v1/audit/alerts/rules", READERS),
    row("GET", "/api/v1/audit/alerts/silences", READERS),
    row("POST", "/api/v1/audit/alerts/silences", OPERATORS),
    row(
        "DELETE",
        "/api/v1/audit/alerts/silences/{number}",
        OPERATORS,
    ),
    row(
        "POST",
        "/api/v1/audit/alerts/{number}/acknowledge",
        OPERATORS,
    ),
    row("POST", "/api/v1/audit/alerts/test", OPERATORS),
    row("GET", "/api/v1/audit/exports", READERS),
    row("GET", "/api/v1/audit/exports/{name}/refused", READERS),
    row("POST", "/api/v1/audit/exports/{name}/retry", OPERATORS),
    row("GET", "/api/v1/audit/sites", READERS),
    // What cannot be taken back.
    row("POST", "/api/v1/audit/sites/{site}/erase", ADMINS),
    row("GET", "/api/v1/audit/log/retention", READERS),
    row("GET", "/api/v1/audit/log/self-check", READERS),
    row("POST", "/api/v1/audit/log/self-check", OPERATORS),
    row("GET", "/api/v1/audit/witness", READERS),
    // C2SP tlog-witness has no callers: what counts is the signature of a log that this cloud was told to witness.
    row("POST", "/witness/v0/add-checkpoint", EVERYBODY),
    row("GET", "/witness/v0/{origin}/checkpoint", EVERYBODY),
    row("GET", "/api/v1/operators", READERS),
    row("POST", "/api/v1/operators", ADMINS),
    row("DELETE", "/api/v1/operators/{name}", ADMINS),
    row("GET", "/api/v1/apikeys", READERS),
    row("POST", "/api/v1/apikeys", ADMINS),
    row("DELETE", "/api/v1/apikeys/{name}", ADMINS),
    row("GET", "/api/v1/ek-roots", READERS),
    // Whoever decides which TPMs are believed decides who can be a node.
    row("POST", "/api/v1/ek-roots", ADMINS),
    row("DELETE", "/api/v1/ek-roots/{fingerprint}", ADMINS),
    row("GET", "/api/v1/eks", READERS),
    row("POST", "/api/v1/eks", ADMINS),
    row("DELETE", "/api/v1/eks/{list}/{digest}", ADMINS),
];

impl Route {
    pub fn admits(&self, class: Class) -> bool {
        self.callers.contains(&class)
    }

    pub fn is_grpc(&self) -> bool {
        self.path.starts_with("/edgeward.")
    }
}

/// The row of a request. `HEAD` is asked as `GET`.
pub fn lookup(method: &str, path: &str) -> Option<&'static Route> {
    let method = if method == "HEAD" { "GET" } else { method };
    ROUTES
        .iter()
        .find(|route| route.method == method && route.path == path)
}

const fn row(method: &'static str, path: &'static str, callers: &'static [Class]) -> Route {
    Route {
        method,
        path,
        callers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_that_the_table_does_not_name_is_not_found() {
        assert!(lookup("PUT", "/api/v1/nodes").is_none());
        assert!(lookup("GET", "/api/v1/nodes/").is_none());
        assert!(lookup("OPTIONS", "/api/v1/nodes").is_none());
    }

    #[test]
    fn every_row_is_there_once_and_has_callers() {
        for (index, route) in ROUTES.iter().enumerate() {
            assert!(!route.callers.is_empty(), "{}", route.path);
            assert!(
                !ROUTES
                    .iter()
                    .skip(index + 1)
                    .any(|other| other.method == route.method && other.path == route.path),
                "{} {}",
                route.method,
                route.path
            );
        }
    }

    #[test]
    fn only_reading_and_the_document_is_for_auditors() {
        for route in ROUTES.iter().filter(|route| {
            route.admits(Class::Operator(Role::Auditor))
                || route.admits(Class::ApiKey(Role::Auditor))
        }) {
            assert!(
                route.method == "GET"
                    || route.path == "/api/v1/policies/check"
                    || route.callers == EVERYBODY,
                "{} {}",
                route.method,
                route.path
            );
        }
    }
}
