-- The earliest and the latest time of events in each run of 1,024 leaves: a question for a time goes where such events
-- are. Clocks of nodes differ, and may be wrong; each wrong one costs its own run only.
CREATE TABLE event_spans (
    span BIGINT NOT NULL PRIMARY KEY,
    earliest BIGINT NOT NULL,
    latest BIGINT NOT NULL
);
INSERT INTO event_spans (span, earliest, latest)
    SELECT leaf / 1024, MIN(time), MAX(time) FROM events GROUP BY leaf / 1024;

-- Serial numbers of issued certificates, as hex. They stand inside of records, so those of events from before this
-- table are put in by the program, once, when the store is opened.
CREATE TABLE event_serials (
    serial TEXT NOT NULL,
    leaf BIGINT NOT NULL,
    PRIMARY KEY (serial, leaf)
);
INSERT INTO facts (name, value)
    SELECT 'audit_serials', 'wanted' WHERE EXISTS (SELECT leaf FROM events);

-- All who proved nothing, whatever their address.
CREATE INDEX events_anonymous ON events (leaf) WHERE substr(actor, 1, 9) = 'anonymous';

-- Charts count without reading records.
DROP INDEX events_time;
CREATE INDEX events_chart ON events (time, type, verdict, node);
