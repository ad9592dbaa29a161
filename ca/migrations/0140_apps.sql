-- Files of the image repository's metadata. Which of a role's is in force: `current` is 1.
CREATE TABLE apps_metadata (
    -- As consistent snapshots name it.
    name TEXT NOT NULL PRIMARY KEY,
    -- root, timestamp, snapshot, targets, or a publisher.
    role TEXT NOT NULL,
    version BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    current BIGINT NOT NULL,
    -- SHA-256 of the content, hex.
    sha256 TEXT NOT NULL,
    -- In bytes.
    length BIGINT NOT NULL,
    -- Base64.
    content TEXT NOT NULL,
    added BIGINT NOT NULL,
    added_by TEXT NOT NULL
);
CREATE INDEX apps_metadata_role ON apps_metadata (role, added);

-- Releases that publishers signed. Those that they name no longer stay, so that nothing else comes under their names.
CREATE TABLE apps_releases (
    -- publisher/name
    app TEXT NOT NULL,
    publisher TEXT NOT NULL,
    -- As text: 2.3 and 2.3.0 are two releases.
    version TEXT NOT NULL,
    -- SHA-256 of the manifest, hex.
    digest TEXT NOT NULL,
    -- Of the manifest, in bytes.
    length BIGINT NOT NULL,
    -- Of all files, in bytes.
    size BIGINT NOT NULL,
    published BIGINT NOT NULL,
    published_by TEXT NOT NULL,
    withdrawn BIGINT,
    PRIMARY KEY (app, version)
);
