-- Every certificate that has not ended, whoever holds it: which authority signed it, and for whom.
CREATE TABLE issued (
    serial TEXT NOT NULL PRIMARY KEY,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    -- SHA-256 of the SPKI of the authority that signed it.
    issuer TEXT NOT NULL,
    issued BIGINT NOT NULL,
    not_after BIGINT NOT NULL
);
CREATE INDEX issued_issuer ON issued (issuer, not_after);
CREATE INDEX issued_subject ON issued (subject, issued);

-- What each node was last seen with: the trust bundle that it stored, and who signed the certificate it came with.
CREATE TABLE node_trust (
    node TEXT NOT NULL PRIMARY KEY,
    bundle BIGINT NOT NULL,
    issuer TEXT NOT NULL,
    updated BIGINT NOT NULL
);
