//! Keys that are slow to sign, for handshakes on a runtime that has other things to do.

use std::sync::Arc;

use edgeward_identity::svid::SvidError;
use edgeward_identity::{PublicKey, SignError, Signer, Svid};
use tokio::runtime::{Handle, RuntimeFlavor};

/// A signer that tells the runtime that it blocks, so that another thread takes over this worker's tasks.
#[derive(Debug)]
struct BlockingSigner(Arc<dyn Signer>);

impl Signer for BlockingSigner {
    fn public_key(&self) -> &PublicKey {
        self.0.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let workers = Handle::try_current()
            .is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
        if workers {
            tokio::task::block_in_place(|| self.0.sign(message))
        } else {
            self.0.sign(message)
        }
    }
}

/// The same SVID, with a key that does not hold up a worker's other tasks.
pub fn off_the_workers(svid: &Svid) -> Result<Svid, SvidError> {
    let signer = BlockingSigner(Arc::clone(svid.signer()));
    Svid::new(svid.chain().to_vec(), Arc::new(signer))
}
