//! MQTT 3.1.1 and 5: every topic that is published to, every filter that is subscribed to and every message that comes
//! back is decided.
//!
//! No codec from elsewhere: what a gateway must read is little, must be read strictly and bounded, and goes on as the
//! bytes that came, which codecs that build and print packets do not do.

use edgeward_policy::L7Request;
use edgeward_policy::l7::mqtt::Request;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};

use super::relay::relay;
use super::{Broken, Caller};
use session::{Rights, Session};

pub mod bytes;
pub mod connect;
pub mod packet;
pub mod property;
pub mod publish;
pub mod session;
pub mod subscribe;

/// Bytes of an identifier that nobody can guess.
const FRESH_ID_BYTES: usize = 16;

/// Carries one connection.
pub async fn carry<S>(mut stream: S, caller: Caller) -> Result<(), Broken>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut random = [0; FRESH_ID_BYTES];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Broken::Denied("no randomness"))?;
    let server = caller.connect().await?;
    let rights = ByPolicy(caller.clone());
    let session = Session::new(rights, caller.id(), hex::encode(random));
    let end = relay(&mut stream, server, session).await;
    end.told(&caller)
}

/// What policy says of the caller.
struct ByPolicy(Caller);

impl Rights for ByPolicy {
    fn may(&mut self, request: Request<'_>) -> bool {
        self.0.decide(&L7Request::Mqtt(request)).allow
    }

    fn still(&mut self, request: Request<'_>) -> bool {
        self.0.still(&L7Request::Mqtt(request)).allow
    }
}
