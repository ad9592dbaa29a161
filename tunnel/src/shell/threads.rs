//! Which thread does what. However the work is divided, the packets of one direction keep their order.
//!
//! A thread that has done a batch goes straight back to waiting: on a busy machine the one it just woke may be
//! waiting for this very core.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parking_lot::Mutex;

use super::Shared;
use super::egress::{Departures, Reader, Sender};
use super::ingress::{Arrivals, Receiver, Writer};
use super::linger::Linger;
use super::pipe::{Closing, Pipe};
use super::relief::{Ease, Ending, Pressure, QUIET, Relief};
use super::stop::{Ready, Wake, Watch};

/// Batches with fewer bytes are not worth waking the second thread of a direction for.
const WORTH_WAKING_BYTES: usize = 16 << 10;

/// From the device to the port: whoever has it.
pub(super) struct Out {
    reader: Reader,
    sender: Sender,
    batch: Departures,
}

impl Out {
    pub(super) fn new(shared: &Shared, reader: Reader, sender: Sender) -> Self {
        Self {
            reader,
            sender,
            batch: Departures::new(&shared.sizes),
        }
    }

    /// Moves one batch; how many bytes it had.
    fn step(&mut self) -> io::Result<usize> {
        if !self.reader.read(&mut self.batch)? {
            return Ok(0);
        }
        self.sender.send(&mut self.batch);
        Ok(self.batch.bytes())
    }
}

/// Both directions in one thread, but for what `relief` takes over.
pub(super) fn both(
    shared: &Arc<Shared>,
    watch: &Watch,
    out: &Mutex<Out>,
    (receiver, writer): (&mut Receiver, &mut Writer),
    relief: Option<&Relief>,
) -> io::Result<()> {
    let _ending = relief.map(Ending);
    let mut arrivals = Arrivals::new(&shared.sizes);
    let mut pressure = Pressure::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut linger = Linger::new(shared.linger, cores);
    // Who has the device now, if not we.
    let mut helper: Option<&Relief> = None;
    loop {
        let device = helper.map_or(shared.device.as_fd(), Relief::bell);
        let (ready, arrived) = match wait(shared, watch, device, &mut linger)? {
            Ready::Stopped => return Ok(()),
            Ready::Which { first, second } => (first, second),
        };
        let mut out_bytes = 0;
        match helper {
            Some(relief) if ready => {
                relief.take_back()?;
                helper = None;
            }
            None if ready => out_bytes = out.lock().step()?,
            Some(_) | None => {}
        }
        let mut into_bytes = 0;
        if arrived {
            while receiver.receive(&mut arrivals)? {
                into_bytes += arrivals.bytes();
                writer.write(&mut arrivals);
                if !receiver.has_more() {
                    break;
                }
            }
        }
        if helper.is_none() {
            linger.did(out_bytes, into_bytes);
        }
        if let Some(relief) = relief
            && pressure.is_due(out_bytes, into_bytes)
        {
            relief.ask();
            helper = Some(relief);
        }
    }
}

/// Until the device or the port has something, at first awake where that is worth it.
fn wait(
    shared: &Shared,
    watch: &Watch,
    device: BorrowedFd<'_>,
    linger: &mut Linger,
) -> io::Result<Ready> {
    let port = shared.port.as_fd();
    if !linger.is_allowed() {
        return watch.wait_either(device, port);
    }
    if let Some(until) = linger.begin(shared.clock.boottime()) {
        loop {
            let ready = watch.look_at_either(device, port)?;
            let now = shared.clock.boottime();
            if ready != Ready::NOTHING {
                linger.over(now);
                return Ok(ready);
            }
            if now >= until {
                linger.in_vain(now);
                break;
            }
            // Who is waited for may be waiting for this core.
            std::thread::yield_now();
        }
    }
    let ready = watch.wait_either(device, port)?;
    linger.over(shared.clock.boottime());
    Ok(ready)
}

/// The second thread: takes the device over while there is much to do both ways.
pub(super) fn relieve(
    shared: &Arc<Shared>,
    watch: &Watch,
    out: &Mutex<Out>,
    relief: &Relief,
) -> io::Result<()> {
    while relief.wait() {
        let mut ease = Ease::default();
        loop {
            match watch.wait_readable_for(shared.device.as_fd(), QUIET)? {
                Wake::Stopped => return Ok(()),
                Wake::TimedOut => break,
                Wake::Ready => {
                    if ease.is_over(out.lock().step()?) {
                        break;
                    }
                }
            }
        }
        relief.give_back()?;
    }
    Ok(())
}

/// First thread of two from the device to the port. `sender` is for small batches, while the second one rests.
pub(super) fn out_first(
    shared: &Arc<Shared>,
    watch: &Watch,
    pipe: &Pipe<Departures>,
    reader: &mut Reader,
    sender: &mut Sender,
) -> io::Result<()> {
    let _closing = Closing(pipe);
    while let Some(mut batch) = pipe.take_free() {
        loop {
            if watch.wait_readable(shared.device.as_fd())? == Wake::Stopped {
                return Ok(());
            }
            if !reader.read(&mut batch)? {
                continue;
            }
            if batch.bytes() >= WORTH_WAKING_BYTES || !pipe.is_idle() {
                break;
            }
            sender.send(&mut batch);
        }
        pipe.hand_over(batch);
    }
    Ok(())
}

/// Second thread of two from the device to the port.
pub(super) fn out_second(pipe: &Pipe<Departures>, sender: &mut Sender) {
    let _closing = Closing(pipe);
    while let Some(mut batch) = pipe.take_filled() {
        sender.send(&mut batch);
        pipe.give_back(batch);
    }
}

/// First thread of two from the port to the device. `writer` is for small batches, while the second one rests.
pub(super) fn into_first(
    shared: &Arc<Shared>,
    watch: &Watch,
    pipe: &Pipe<Arrivals>,
    receiver: &mut Receiver,
    writer: &mut Writer,
) -> io::Result<()> {
    let _closing = Closing(pipe);
    while let Some(mut batch) = pipe.take_free() {
        loop {
            if !receiver.has_more() && watch.wait_readable(shared.port.as_fd())? == Wake::Stopped {
                return Ok(());
            }
            if !receiver.receive(&mut batch)? {
                continue;
            }
            if batch.bytes() >= WORTH_WAKING_BYTES || !pipe.is_idle() {
                break;
            }
            writer.write(&mut batch);
        }
        pipe.hand_over(batch);
    }
    Ok(())
}

/// Second thread of two from the port to the device.
pub(super) fn into_second(pipe: &Pipe<Arrivals>, writer: &mut Writer) {
    let _closing = Closing(pipe);
    while let Some(mut batch) = pipe.take_filled() {
        writer.write(&mut batch);
        pipe.give_back(batch);
    }
}
