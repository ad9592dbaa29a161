//! How many signatures a second a key store gives: `sign_rate file|PKCS11-URI [SECONDS]`. Asserts nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use edgeward_ca::keys::pkcs11::Token;
use edgeward_identity::{Signer, SoftwareKey};

/// What is signed: as long as a certificate's content.
const MESSAGE: [u8; 512] = [7; 512];
/// Name of the key that is made, or found, in the token.
const NAME: &str = "sign-rate";

#[expect(clippy::print_stdout, reason = "a measurement is printed")]
fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let store = arguments.next().context("file, or a pkcs#11 uri")?;
    let seconds: u64 = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let key: Arc<dyn Signer> = match store.as_str() {
        "file" => Arc::new(SoftwareKey::generate()?),
        uri => Token::open(&uri.parse()?)?.make(NAME)?,
    };
    for threads in [1, 2] {
        let done = AtomicU64::new(0);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while begun.elapsed() < Duration::from_secs(seconds) {
                        if key.sign(&MESSAGE).is_err() {
                            return;
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let rate = done.load(Ordering::Relaxed) / seconds;
        println!("{threads} threads: {rate} signatures/s");
    }
    Ok(())
}
