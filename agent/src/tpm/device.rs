//! The open TPM: one ESYS context, found handles, retries, and cleaning up after a crash.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::CapabilityData;
use tss_esapi::{Context, Error, TctiNameConf};

use super::TpmError;
use super::actor::Shared;
use super::code::{Fault, failed};

/// First and last wait before a passing fault is tried again.
const BACKOFF: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(100)];
/// Most tries of one command.
const MAX_TRIES: u32 = 8;
/// Where the kernel or a broker keeps every client's objects apart: nothing of others is seen or may be flushed.
const MANAGED: [&str; 2] = ["device:/dev/tpmrm", "tabrmd"];
/// First handles of transient objects, loaded HMAC and policy sessions, saved sessions.
const FLUSHABLE: [u32; 3] = [0x8000_0000, 0x0200_0000, 0x0300_0000];
/// Most handles of one range that are looked at.
const MAX_HANDLES: u32 = 64;

/// The password session with the empty password: what `noDA` keys and hierarchies without a password take.
pub(super) const EMPTY_AUTH: Option<AuthSession> = Some(AuthSession::Password);

/// Where the TPM is and which handles are ours in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// TCTI in the notation of libtss2, such as `device:/dev/tpmrm0`.
    pub tcti: Arc<str>,
    /// Persistent handle of the AK; the two after it are the SVID key's.
    pub first_handle: u32,
    /// NV index of the epoch counter.
    pub epoch_index: u32,
    /// Whether what an aborted process left may be flushed: only for the process that owns the TPM.
    pub owner: bool,
}

/// The value names no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPlace {
    #[error("not a tcti such as device:/dev/tpmrm0 or swtpm:host=127.0.0.1,port=2321: {0:?}")]
    Tcti(String),
    #[error("not a persistent handle from 0x81000000 to 0x817ffffd: {0:#010x}")]
    Handle(u32),
    #[error("not an nv index from 0x01800000 to 0x01bfffff (owner): {0:#010x}")]
    NvIndex(u32),
}

/// Owned by the TPM thread.
pub struct Device {
    place: Place,
    shared: Arc<Shared>,
    context: Context,
    /// ESYS handles of persistent objects, so that a signature is one command.
    known: HashMap<u32, KeyHandle>,
}

impl Place {
    pub fn parse(tcti: &str, first_handle: u32, epoch_index: u32) -> Result<Self, BadPlace> {
        TctiNameConf::from_str(tcti).map_err(|_| BadPlace::Tcti(tcti.to_owned()))?;
        if !(0x8100_0000..=0x817f_fffd).contains(&first_handle) {
            return Err(BadPlace::Handle(first_handle));
        }
        if !(0x0180_0000..=0x01bf_ffff).contains(&epoch_index) {
            return Err(BadPlace::NvIndex(epoch_index));
        }
        Ok(Self {
            tcti: tcti.into(),
            first_handle,
            epoch_index,
            owner: false,
        })
    }

    /// For the process that has the TPM to itself (the agent, under the lock of its state folder).
    #[must_use]
    pub fn owned(mut self) -> Self {
        self.owner = true;
        self
    }

    /// Without a resource manager: one client at a time, and everybody's objects in one heap.
    pub fn shows_strangers_objects(&self) -> bool {
        !MANAGED.iter().any(|managed| self.tcti.starts_with(managed))
    }
}

impl Device {
    pub(super) fn open(place: Place, shared: Arc<Shared>) -> Result<Self, TpmError> {
        let mut device = Self {
            context: connect(&place)?,
            place,
            shared,
            known: HashMap::new(),
        };
        if device.place.owner && device.place.shows_strangers_objects() {
            device.flush_stale()?;
        }
        Ok(device)
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Runs one command (or one group that cleans up after itself), again after passing faults, and once more after
    /// the link was lost and opened anew.
    pub(super) fn run<T>(
        &mut self,
        what: &'static str,
        mut command: impl FnMut(&mut Context) -> Result<T, Error>,
    ) -> Result<T, TpmError> {
        let mut wait = BACKOFF[0];
        let mut reopened = false;
        for _ in 0..MAX_TRIES {
            let error = match command(&mut self.context) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let fault = Fault::from(error);
            if fault.is_link() && !reopened {
                reopened = true;
                self.reopen()?;
            } else if !fault.is_transient() || !self.shared.pause(wait) {
                return Err(failed(what)(error));
            }
            wait = (wait * 2).min(BACKOFF[1]);
        }
        Err(TpmError::Failed {
            what,
            fault: Fault::from(Error::WrapperError(
                tss_esapi::WrapperErrorKind::InternalError,
            )),
        })
    }

    /// As [`Device::run`], for what must not be done twice: again only where the TPM says that it did nothing.
    pub(super) fn once<T>(
        &mut self,
        what: &'static str,
        mut command: impl FnMut(&mut Context) -> Result<T, Error>,
    ) -> Result<T, TpmError> {
        let mut wait = BACKOFF[0];
        let mut tries = 1;
        loop {
            let error = match command(&mut self.context) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let passing = Fault::from(error).is_transient();
            if tries >= MAX_TRIES || !passing || !self.shared.pause(wait) {
                return Err(failed(what)(error));
            }
            tries += 1;
            wait = (wait * 2).min(BACKOFF[1]);
        }
    }

    /// The bare context, for clean-up that must not be retried.
    pub(super) fn with_context<T>(&mut self, act: impl FnOnce(&mut Context) -> T) -> T {
        act(&mut self.context)
    }

    /// A persistent key by its TPM handle; none if there is none.
    pub(super) fn persistent(&mut self, handle: u32) -> Result<Option<KeyHandle>, TpmError> {
        if let Some(known) = self.known.get(&handle) {
            return Ok(Some(*known));
        }
        let tpm_handle = TpmHandle::Persistent(
            PersistentTpmHandle::new(handle).map_err(failed("name a persistent handle"))?,
        );
        let found = self.run("find a key", |context| {
            match context.execute_without_session(|context| context.tr_from_tpm_public(tpm_handle))
            {
                Ok(found) => Ok(Some(KeyHandle::from(found))),
                Err(error) if Fault::from(error).is_absent() => Ok(None),
                Err(error) => Err(error),
            }
        })?;
        if let Some(found) = found {
            self.known.insert(handle, found);
        }
        Ok(found)
    }

    /// As [`Device::persistent`], for a key that must be there.
    pub(super) fn required(&mut self, handle: u32) -> Result<KeyHandle, TpmError> {
        self.persistent(handle)?
            .ok_or(TpmError::KeyMissing { handle })
    }

    /// The handle holds another key from now on, or none.
    pub(super) fn forget(&mut self, handle: u32) {
        if let Some(mut known) = self.known.remove(&handle).map(ObjectHandle::from)
            && let Err(error) = self.context.tr_close(&mut known)
        {
            tracing::debug!(%error, "a handle could not be closed");
        }
    }

    /// The object is gone, and with it the library's handle.
    pub(super) fn lose(&mut self, handle: u32) {
        self.known.remove(&handle);
    }

    fn reopen(&mut self) -> Result<(), TpmError> {
        tracing::warn!(place = %self.place.tcti, "the link to the tpm was lost; opening it anew");
        self.known.clear();
        self.context = connect(&self.place)?;
        Ok(())
    }

    /// Flushes transient objects and sessions that an aborted process left: they occupy the few slots there are.
    fn flush_stale(&mut self) -> Result<(), TpmError> {
        for first in FLUSHABLE {
            let handles = self.run("list handles", |context| handles_from(context, first))?;
            for handle in handles {
                self.flush_one(handle);
            }
        }
        Ok(())
    }

    fn flush_one(&mut self, handle: TpmHandle) {
        // The wrapper flushes a session found this way and then complains about its own bookkeeping.
        let flushed = self.context.execute_without_session(|context| {
            context
                .tr_from_tpm_public(handle)
                .and_then(|object| context.flush_context(object))
        });
        match flushed {
            Ok(()) => tracing::info!(?handle, "flushed what an aborted process left in the tpm"),
            Err(error) => tracing::debug!(?handle, %error, "flushing a stale handle"),
        }
    }
}

/// Runs `use_it` and flushes the object, whatever came of it.
pub(super) fn with_transient<T>(
    context: &mut Context,
    object: KeyHandle,
    use_it: impl FnOnce(&mut Context, KeyHandle) -> Result<T, Error>,
) -> Result<T, Error> {
    let result = use_it(context, object);
    flush(context, object.into());
    result
}

/// Flushes; a failure is told and does not hide what was done before.
pub(super) fn flush(context: &mut Context, handle: ObjectHandle) {
    if let Err(error) = context.execute_without_session(|context| context.flush_context(handle)) {
        tracing::warn!(%error, "an object or session could not be flushed from the tpm");
    }
}

pub(super) fn handles_from(context: &mut Context, first: u32) -> Result<Vec<TpmHandle>, Error> {
    let (data, _) = context.execute_without_session(|context| {
        context.get_capability(CapabilityType::Handles, first, MAX_HANDLES)
    })?;
    match data {
        CapabilityData::Handles(handles) => Ok(handles.into_inner()),
        _ => Err(Error::WrapperError(
            tss_esapi::WrapperErrorKind::WrongValueFromTpm,
        )),
    }
}

fn connect(place: &Place) -> Result<Context, TpmError> {
    let unreachable = |detail: String| TpmError::Unreachable {
        place: place.tcti.clone(),
        detail,
    };
    let name =
        TctiNameConf::from_str(&place.tcti).map_err(|error| unreachable(error.to_string()))?;
    let mut context =
        Context::new(name).map_err(|error| unreachable(Fault::from(error).to_string()))?;
    // A context opens lazily: ask something, so that an unreachable TPM shows now.
    handles_from(&mut context, FLUSHABLE[0])
        .map_err(|error| unreachable(Fault::from(error).to_string()))?;
    Ok(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_makes_no_sense_is_refused() {
        let (handle, index) = (0x8101_0200, 0x0180_0e01);
        assert!(matches!(
            Place::parse("/dev/tpm0", handle, index),
            Err(BadPlace::Tcti(_))
        ));
        assert!(matches!(
            Place::parse("device:/dev/tpmrm0", 0x8000_0000, index),
            Err(BadPlace::Handle(_))
        ));
        assert!(matches!(
            Place::parse("device:/dev/tpmrm0", handle, 0x01c0_0002),
            Err(BadPlace::NvIndex(_))
        ));
    }

    #[test]
    fn objects_of_others_are_only_seen_without_a_resource_manager() {
        let place = |tcti| Place::parse(tcti, 0x8101_0200, 0x0180_0e01).unwrap();
        assert!(!place("device:/dev/tpmrm0").shows_strangers_objects());
        assert!(place("device:/dev/tpm0").shows_strangers_objects());
        assert!(place("swtpm:host=127.0.0.1,port=2321").shows_strangers_objects());
    }
}
