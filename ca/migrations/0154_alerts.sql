-- Alerts: one row for each time that a rule held for a key, from its first hit until it was over.
CREATE TABLE alerts (
    number BIGINT NOT NULL PRIMARY KEY,
    rule TEXT NOT NULL,
    alert_key TEXT NOT NULL,
    severity TEXT NOT NULL,
    state TEXT NOT NULL,
    last BIGINT NOT NULL,
    -- Everything about it, as JSON.
    body TEXT NOT NULL
);
CREATE INDEX alerts_state ON alerts (state, number);
CREATE INDEX alerts_rule ON alerts (rule, state);

-- What is to be said elsewhere: one row for each word and sink, until the sink has taken it or it was given up.
CREATE TABLE alert_notices (
    number BIGINT NOT NULL PRIMARY KEY,
    sink TEXT NOT NULL,
    alert BIGINT NOT NULL,
    -- waiting, dead
    state TEXT NOT NULL,
    made BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    next BIGINT NOT NULL,
    error TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX alert_notices_sink ON alert_notices (sink, state, number);

CREATE TABLE alert_silences (
    number BIGINT NOT NULL PRIMARY KEY,
    until BIGINT NOT NULL,
    body TEXT NOT NULL
);

-- Quarantines that rules asked for: what the fleet's cap is counted by.
CREATE TABLE alert_acts (
    number BIGINT NOT NULL PRIMARY KEY,
    alert BIGINT NOT NULL,
    node TEXT NOT NULL,
    -- The event that proves it.
    leaf BIGINT NOT NULL,
    proof TEXT NOT NULL,
    made BIGINT NOT NULL,
    outcome TEXT NOT NULL
);
CREATE INDEX alert_acts_made ON alert_acts (made);

-- Which cloud of this database looks at the log for alerts, and how far it has come.
CREATE TABLE alert_duty (
    name TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    until BIGINT NOT NULL,
    leaf BIGINT NOT NULL
);
