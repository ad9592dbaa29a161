-- Certificates of TPM makers that operators imported, beside those in the folder.
CREATE TABLE ek_certificates (
    -- SHA-256 of the DER, hex.
    sha256 TEXT NOT NULL PRIMARY KEY,
    der TEXT NOT NULL,
    tier TEXT NOT NULL,
    -- Version of the built-in list that knew it; 0: an operator's word.
    pinned BIGINT NOT NULL,
    sets_in_any_order BIGINT NOT NULL,
    after_its_end BIGINT NOT NULL,
    added BIGINT NOT NULL,
    added_by TEXT NOT NULL
);

-- What operators said about single EKs and EK certificates, beside the lists in the folder.
CREATE TABLE eks (
    -- SHA-256 of the EK's TPMT_PUBLIC, or for `encoding` of the certificate's DER; hex.
    digest TEXT NOT NULL,
    -- allowed, denied, encoding
    list TEXT NOT NULL,
    note TEXT NOT NULL,
    added BIGINT NOT NULL,
    added_by TEXT NOT NULL,
    PRIMARY KEY (digest, list)
);
