-- Digests of releases, or of files in them, that run nowhere any more.
CREATE TABLE apps_denied (
    -- Hex.
    digest TEXT NOT NULL PRIMARY KEY,
    -- What an operator named, for people: publisher/name and version, or empty.
    app TEXT NOT NULL,
    version TEXT NOT NULL,
    reason TEXT NOT NULL,
    since BIGINT NOT NULL,
    denied_by TEXT NOT NULL
);

-- The highest version of each app that a node was given, and the one before.
CREATE TABLE apps_given (
    node TEXT NOT NULL,
    app TEXT NOT NULL,
    highest TEXT NOT NULL,
    previous TEXT,
    PRIMARY KEY (node, app)
);

-- Orders to go back: they hold while the node's highest version is the one that they lead back from.
CREATE TABLE apps_back (
    node TEXT NOT NULL,
    app TEXT NOT NULL,
    from_version TEXT NOT NULL,
    ordered BIGINT NOT NULL,
    ordered_by TEXT NOT NULL,
    PRIMARY KEY (node, app)
);
