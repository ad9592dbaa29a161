//! Which class and activity of the schema an event is.

use crate::event::EventKind;

/// The classes that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    Base,
    DetectionFinding,
    AccountChange,
    Authentication,
    EntityManagement,
    NetworkActivity,
    ApplicationLifecycle,
    ApiActivity,
}

/// What was done, in the words of the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    pub id: u8,
    pub name: &'static str,
}

impl Class {
    pub const fn uid(self) -> u32 {
        match self {
            Self::Base => 0,
            Self::DetectionFinding => 2004,
            Self::AccountChange => 3001,
            Self::Authentication => 3002,
            Self::EntityManagement => 3004,
            Self::NetworkActivity => 4001,
            Self::ApplicationLifecycle => 6002,
            Self::ApiActivity => 6003,
        }
    }

    /// `category_uid`: the thousands.
    pub const fn category(self) -> u32 {
        self.uid() / 1000
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "Base Event",
            Self::DetectionFinding => "Detection Finding",
            Self::AccountChange => "Account Change",
            Self::Authentication => "Authentication",
            Self::EntityManagement => "Entity Management",
            Self::NetworkActivity => "Network Activity",
            Self::ApplicationLifecycle => "Application Lifecycle",
            Self::ApiActivity => "API Activity",
        }
    }
}

/// By the event's family and what it says of it. What is new here and stands nowhere below is a base event with its own
/// name: never left out, never in a class that it is not of.
pub(super) fn of(kind: EventKind) -> (Class, Activity) {
    let name = kind.name();
    let act = name.split_once('.').map_or("", |(_, act)| act);
    match name {
        "audit.halted" | "audit.damaged" | "witness.disputed" | "attestation.failed"
        | "attestation.stale" | "node.cloned" | "journal.lost" | "journal.gap"
        | "journal.forked" | "journal.silent" | "break-glass.opened" | "app.guard_shut" => {
            return (Class::DetectionFinding, activity(1, "Create"));
        }
        _ => {}
    }
    match kind.family() {
        "alert" => (Class::DetectionFinding, finding(act)),
        "operator" | "apikey" => (Class::AccountChange, account(act)),
        "session" | "svid" | "workload" | "attestation" | "boot" => {
            (Class::Authentication, authentication(act))
        }
        "token" | "enrolment" | "ekroot" | "ek" | "node" | "authority" | "roots" | "denylist"
        | "policy" | "approval" | "break-glass" | "publisher" => {
            (Class::EntityManagement, entity(kind.family(), act))
        }
        "bind" | "path" | "relay" | "flow" | "gateway" | "cut" => {
            (Class::NetworkActivity, network(act))
        }
        "app" | "cloud" | "agent" => (Class::ApplicationLifecycle, application(act)),
        "api" | "audit" => (Class::ApiActivity, api(act)),
        _ => (Class::Base, other(kind)),
    }
}

const fn activity(id: u8, name: &'static str) -> Activity {
    Activity { id, name }
}

/// "Other", under our own name of it.
fn other(kind: EventKind) -> Activity {
    activity(99, kind.name())
}

fn finding(act: &str) -> Activity {
    match act {
        "raised" => activity(1, "Create"),
        "ended" => activity(3, "Close"),
        _ => activity(2, "Update"),
    }
}

fn account(act: &str) -> Activity {
    match act {
        "added" | "created" => activity(1, "Create"),
        "revoked" => activity(6, "Delete"),
        _ => activity(99, "Other"),
    }
}

fn authentication(act: &str) -> Activity {
    match act {
        "opened" | "refused" => activity(1, "Logon"),
        "closed" | "displaced" => activity(2, "Logoff"),
        "issued" | "served" | "denied" | "passed" | "stated" => {
            activity(3, "Authentication Ticket")
        }
        "renewed" => activity(5, "Service Ticket Renew"),
        _ => activity(99, "Other"),
    }
}

fn entity(family: &str, act: &str) -> Activity {
    match (family, act) {
        ("enrolment", _) => activity(6, "Enroll"),
        (_, "created" | "trusted" | "listed" | "issued" | "given" | "prepared" | "published") => {
            activity(1, "Create")
        }
        (_, "removed" | "revoked" | "unlisted" | "retired") => activity(4, "Delete"),
        (_, "approved" | "recovered") => activity(8, "Enable"),
        (_, "waits" | "tainted") => activity(9, "Disable"),
        (_, "applied" | "activated" | "staged") => activity(10, "Activate"),
        (_, "closed") => activity(11, "Deactivate"),
        (_, "quarantined" | "paused") => activity(12, "Suspend"),
        (_, "released" | "resumed") => activity(13, "Resume"),
        _ => activity(3, "Update"),
    }
}

fn network(act: &str) -> Activity {
    match act {
        "opened" => activity(1, "Open"),
        "closed" => activity(2, "Close"),
        "ordered" | "effected" => activity(3, "Reset"),
        "down" => activity(4, "Fail"),
        "refused" | "denied" => activity(5, "Refuse"),
        "allowed" => activity(6, "Traffic"),
        "up" => activity(7, "Listen"),
        _ => activity(99, "Other"),
    }
}

fn application(act: &str) -> Activity {
    match act {
        "installing" | "installed" | "initialised" => activity(1, "Install"),
        "removed" | "revoked" => activity(2, "Remove"),
        "started" => activity(3, "Start"),
        "ended" | "stopped" => activity(4, "Stop"),
        "guard_restarted" | "recovered" => activity(5, "Restart"),
        "held" => activity(7, "Disable"),
        "published" | "assigned" | "returned" | "upgraded" | "level_changed" => {
            activity(8, "Update")
        }
        _ => activity(99, "Other"),
    }
}

fn api(act: &str) -> Activity {
    match act {
        "read" => activity(2, "Read"),
        _ => activity(99, "Other"),
    }
}
