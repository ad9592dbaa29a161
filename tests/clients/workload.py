"""A process that asks for its identities with PyPI's `spiffe`, a client of the SPIFFE Workload API that was written
elsewhere, and says as JSON lines what it got: `workload.py SOCKET AUDIENCE [watch]`. Signatures of tokens are checked
here, by the fetched keys. Run by tests/scenarios/workload.rs."""

import json
import queue
import sys

from cryptography.hazmat.primitives.serialization import Encoding
from spiffe import JwtSvid, SpiffeId, WorkloadApiClient

WAIT_SECONDS = 90


def der(svid):
    return svid.leaf.public_bytes(Encoding.DER).hex()


def refused(call):
    try:
        call()
    except Exception:  # noqa: BLE001 - every refusal is one of the library's own errors
        return True
    return False


def main():
    socket, audience = sys.argv[1:3]
    with WorkloadApiClient(socket_path=f"unix:{socket}") as client:
        updates = queue.Queue()
        client.stream_x509_contexts(updates.put, updates.put)
        first = updates.get(timeout=WAIT_SECONDS)
        if isinstance(first, Exception):
            raise first
        svid = first.default_svid
        domain = svid.spiffe_id.trust_domain
        roots = client.fetch_x509_bundles().get_bundle_for_trust_domain(domain)
        token = client.fetch_jwt_svid({audience}).token
        keys = client.fetch_jwt_bundles().get_bundle_for_trust_domain(domain)
        local = JwtSvid.parse_and_validate(token, keys, {audience})
        remote = client.validate_jwt_svid(token, audience)
        stranger = SpiffeId("spiffe://plant.example/workload/stranger")
        say(
            ids=[str(one.spiffe_id) for one in first.x509_svids],
            leaf=der(svid),
            chain=len(svid.cert_chain),
            roots=len(roots.x509_authorities),
            token=token,
            token_id=str(local.spiffe_id),
            validated=str(remote.spiffe_id),
            other_audience_refused=refused(
                lambda: JwtSvid.parse_and_validate(token, keys, {"somebody-else"})
            )
            and refused(lambda: client.validate_jwt_svid(token, "somebody-else")),
            other_identity_refused=refused(
                lambda: client.fetch_jwt_svid({audience}, subject=stranger)
            ),
            key_known=True,
        )
        if sys.argv[3:] == ["watch"]:
            following = updates.get(timeout=WAIT_SECONDS)
            if isinstance(following, Exception):
                raise following
            say(leaf=der(following.default_svid))


def say(**what):
    print(json.dumps(what), flush=True)


main()
