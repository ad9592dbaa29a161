-- Keys of sites that were destroyed, written in the transaction that records `audit.erased`: an erasure that was recorded
-- is brought to its end, also after a crash, and where a backup of the folder of keys brings a key back.
CREATE TABLE site_erasures (
    site_key BIGINT NOT NULL PRIMARY KEY,
    -- Site and times, sealed by a key of the cloud's own site: whoever can write the database alone destroys no key.
    sealed_by BIGINT NOT NULL,
    body BLOB NOT NULL,
    -- 1: the key is gone.
    destroyed BIGINT NOT NULL
);
