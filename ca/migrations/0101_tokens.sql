-- Bootstrap tokens: the SHA-256 of each secret, never the secret.
CREATE TABLE tokens (
    id TEXT NOT NULL PRIMARY KEY,
    secret_hash TEXT NOT NULL,
    created BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires BIGINT NOT NULL,
    uses BIGINT NOT NULL,
    used BIGINT NOT NULL,
    labels TEXT NOT NULL,
    -- A node name, or a pattern with `*`; absent: any name.
    name TEXT,
    -- SHA-256 of the only EK that may use it.
    ek TEXT,
    approval BIGINT NOT NULL,
    revoked BIGINT,
    revoked_by TEXT
);

-- Which machine used which token: what a retry is recognised by.
CREATE TABLE token_uses (
    token TEXT NOT NULL,
    root TEXT NOT NULL,
    node TEXT NOT NULL,
    used BIGINT NOT NULL,
    PRIMARY KEY (token, root)
);
