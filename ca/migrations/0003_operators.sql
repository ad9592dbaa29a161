-- People and scripts with a certificate. Only the key named here counts, whatever older certificates say.
CREATE TABLE operators (
    name TEXT NOT NULL PRIMARY KEY,
    role TEXT NOT NULL,
    key_hash TEXT NOT NULL UNIQUE,
    -- The key itself, to check what the operator signed.
    public_key TEXT NOT NULL,
    expires BIGINT NOT NULL,
    added BIGINT NOT NULL,
    added_by TEXT NOT NULL,
    revoked BIGINT,
    revoked_by TEXT
);

-- API keys: the SHA-256 of each secret, never the secret.
CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    secret_hash TEXT NOT NULL,
    role TEXT NOT NULL,
    created BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires BIGINT NOT NULL,
    revoked BIGINT,
    revoked_by TEXT
);
