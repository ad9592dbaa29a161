//! Which thread does what. However the work is divided, the packets of one direction keep their order.
//!
//! A thread that has done a batch goes straight back to waiting: on a busy machine the one it just woke may be
//! waiting for this very core.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::Shared;
use super::egress::{Departures, Reader, Sender};
use super::ingress::{Arrivals, Receiver, Writer};
use super::pipe::{Closing, Pipe};
use super::stop::{Ready, Wake, Watch};

/// Batches with fewer bytes are not worth waking the second thread of a direction for.
const WORTH_WAKING_BYTES: usize = 16 << 10;

/// Both directions in one thread.
pub(super) fn both(
    shared: &Arc<Shared>,
    watch: &Watch,
    (reader, sender): (&mut Reader, &mut Sender),
    (receiver, writer): (&mut Receiver, &mut Writer),
) -> io::Result<()> {
    let mut departures = Departures::new(&shared.sizes);
    let mut arrivals = Arrivals::new(&shared.sizes);
    loop {
        match watch.wait_either(shared.device.as_fd(), shared.port.as_fd())? {
            Ready::Stopped => return Ok(()),
            Ready::Which { first, second } => {
                if first && reader.read(&mut departures)? {
                    sender.send(&mut departures);
                }
                if second && receiver.receive(&mut arrivals)? {
                    writer.write(&mut arrivals);
                }
            }
        }
    }
}

/// From the device to the port in one thread.
pub(super) fn out(
    shared: &Arc<Shared>,
    watch: &Watch,
    reader: &mut Reader,
    sender: &mut Sender,
) -> io::Result<()> {
    let mut batch = Departures::new(&shared.sizes);
    while watch.wait_readable(shared.device.as_fd())? != Wake::Stopped {
        if reader.read(&mut batch)? {
            sender.send(&mut batch);
        }
    }
    Ok(())
}

/// From the port to the device in one thread.
pub(super) fn into(
    shared: &Arc<Shared>,
    watch: &Watch,
    receiver: &mut Receiver,
    writer: &mut Writer,
) -> io::Result<()> {
    let mut batch = Arrivals::new(&shared.sizes);
    while watch.wait_readable(shared.port.as_fd())? != Wake::Stopped {
        if receiver.receive(&mut batch)? {
            writer.write(&mut batch);
        }
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
            if watch.wait_readable(shared.port.as_fd())? == Wake::Stopped {
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
