-- What operators signed: a rule counts for a subject until then. One row for each signature.
CREATE TABLE approvals (
    number BIGINT NOT NULL PRIMARY KEY,
    rule TEXT NOT NULL,
    -- SHA-256 over the rule as it was written, hex.
    digest TEXT NOT NULL,
    -- SPIFFE ID.
    subject TEXT NOT NULL,
    until BIGINT NOT NULL,
    -- Name of the operator, and the key that signed.
    approver TEXT NOT NULL,
    public_key TEXT NOT NULL,
    signature TEXT NOT NULL,
    given BIGINT NOT NULL,
    revoked BIGINT,
    revoked_by TEXT
);

-- Break-glass grants, as they were signed for one node each. What seals them is kept nowhere.
CREATE TABLE break_glass (
    number BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    node TEXT NOT NULL,
    -- JSON lists of rule ids and of operators' names.
    rules TEXT NOT NULL,
    approvers TEXT NOT NULL,
    quorum BIGINT NOT NULL,
    ttl BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    issued BIGINT NOT NULL,
    issued_by TEXT NOT NULL,
    revoked BIGINT,
    revoked_by TEXT,
    -- As the node's journal says.
    opened BIGINT,
    opened_by TEXT,
    closed BIGINT,
    acknowledged BIGINT,
    acknowledged_by TEXT
);
