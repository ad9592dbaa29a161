-- Policies that come into force by stages. A policy is in force everywhere unless it has a row here whose phase is not `done`.
CREATE TABLE rollouts (
    number BIGINT NOT NULL PRIMARY KEY,
    base BIGINT NOT NULL,
    -- Percentages, JSON.
    steps TEXT NOT NULL,
    hold BIGINT NOT NULL,
    step BIGINT NOT NULL,
    -- 64 bits, hex.
    threshold TEXT NOT NULL,
    begun BIGINT NOT NULL,
    entered BIGINT NOT NULL,
    leaf BIGINT,
    since BIGINT NOT NULL,
    phase TEXT NOT NULL,
    why TEXT,
    watched BIGINT NOT NULL,
    change TEXT NOT NULL,
    return_signature TEXT
);
-- The policy whose sources were applied again under this number.
ALTER TABLE policies ADD COLUMN origin BIGINT;
