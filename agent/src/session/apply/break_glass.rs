//! Opening and closing the glass: recorded, stored under a new epoch, and only then in force.

use std::sync::Arc;

use edgeward_audit::EventKind;
use edgeward_audit::event::Event;
use edgeward_identity::Clock;

use super::Holder;
use crate::break_glass::{
    Asked, GlassUse, Knows, MayOpen, NotOpened, OpenGlass, Order, Ordered, judge,
};

impl Holder {
    /// Serves one order of the local socket. Whoever asked may have gone: what was done stays done.
    pub async fn glass(&mut self, ordered: Ordered) {
        let result = match ordered.order {
            Order::Open {
                sealed,
                code,
                approvals,
            } => {
                let asked = Asked {
                    sealed: &sealed,
                    code: code.expose(),
                    approvals: &approvals,
                };
                self.open_glass(&asked).await
            }
            Order::Close { number } => self.close_glass(number).await,
        };
        let open = result.map(|()| self.publisher.opened.borrow().to_vec());
        let _ = ordered.done.send(open);
    }

    /// What the stored state says is open still.
    pub async fn reopen_glass(&mut self) {
        let keeper = &self.keeper;
        let now = keeper.clock.boottime();
        let open = keeper.stored.glass.open_at(keeper.boot.kernel(), now);
        for one in &open {
            tracing::error!(name = %one.name, number = one.number, "break-glass: still open after a restart of the agent");
        }
        // A crash may have come between the file and the TPM's epoch: nothing is open before both say so.
        if !open.is_empty() && self.raise().await {
            self.publish_glass();
        }
    }

    async fn open_glass(&mut self, asked: &Asked<'_>) -> Result<(), NotOpened> {
        let may = match self.judge_glass(asked) {
            Ok(may) => may,
            Err(refused) => {
                tracing::error!(code = refused.code(), %refused, "break-glass: not opened");
                metrics::counter!("edgeward_break_glass_refused_total", "code" => refused.code())
                    .increment(1);
                let event = self.event(EventKind::GlassRefused).denied(refused.code());
                self.recorder.record_after(event.detail("reason", &refused));
                return Err(refused);
            }
        };
        let number = may.grant().number();
        // First the record: if it cannot be written, nothing is opened.
        self.recorder
            .record(self.opened_event(&may))
            .await
            .map_err(|error| NotOpened::NotRecorded(error.to_string()))?;
        // The time that storing takes is taken off what was granted, never added to it.
        let now = self.keeper.clock.boottime();
        let until = now.plus(may.ttl()).as_duration().as_millis();
        let used = GlassUse {
            number,
            name: may.grant().body().name.clone(),
            ends: may.grant().expires(),
            rules: may.rules().iter().map(ToString::to_string).collect(),
            by: may.by().to_vec(),
            opened: self.keeper.clock.now(),
            kernel_boot: self.keeper.boot.kernel().to_owned(),
            until_boot_millis: u64::try_from(until).unwrap_or(u64::MAX),
            closed: false,
        };
        self.keeper.stored.glass.add(used, self.keeper.clock.now());
        // Then the use, under a new epoch: a disk that is put back to before it does not open again.
        if !self.raise().await {
            self.keeper.stored.glass.take_back(number);
            let event = self.event(EventKind::GlassClosed).code("glass_not_stored");
            self.recorder.record_after(event.detail("number", number));
            return Err(NotOpened::NotStored);
        }
        self.publish_glass();
        tracing::error!(name = %may.grant().body().name, number, rules = ?may.rules(), ttl_secs = may.ttl().as_secs(),
            "break-glass: OPENED");
        metrics::counter!("edgeward_break_glass_opened_total").increment(1);
        Ok(())
    }

    async fn close_glass(&mut self, number: Option<u64>) -> Result<(), NotOpened> {
        let open: Vec<OpenGlass> = self.publisher.opened.borrow().to_vec();
        let closing: Vec<&OpenGlass> = open
            .iter()
            .filter(|one| number.is_none_or(|number| one.number == number))
            .collect();
        if closing.is_empty() {
            return Err(NotOpened::NothingOpen);
        }
        self.keeper.stored.glass.close(number);
        // What takes away comes first.
        self.publish_glass();
        for one in closing {
            tracing::warn!(name = %one.name, number = one.number, "break-glass: closed");
            let event = self
                .event(EventKind::GlassClosed)
                .subject(format!("break-glass:{}", one.name).as_str())
                .code("closed")
                .detail("number", one.number);
            self.recorder.record_after(event);
        }
        match self.raise().await {
            true => Ok(()),
            false => Err(NotOpened::NotStored),
        }
    }

    fn judge_glass(&self, asked: &Asked<'_>) -> Result<MayOpen, NotOpened> {
        let publisher = &self.publisher;
        let keys = publisher.keys.borrow().clone();
        let trust = publisher.trust.load();
        let slice = publisher.slice.borrow().clone();
        let knows = Knows {
            node: &self.keeper.stored.node,
            keys: &keys,
            deny: &trust.deny,
            own_key: self.spki_hash(),
            slice: slice.as_ref().map(|held| &held.slice),
            uses: &self.keeper.stored.glass,
            standing: *publisher.standing.borrow(),
            now: self.keeper.clock.now(),
        };
        judge(asked, &knows)
    }

    fn publish_glass(&self) {
        let keeper = &self.keeper;
        let open = keeper
            .stored
            .glass
            .open_at(keeper.boot.kernel(), keeper.clock.boottime());
        self.publisher.opened.send_replace(Arc::new(open));
    }

    fn opened_event(&self, may: &MayOpen) -> Event {
        let grant = may.grant();
        let rules: Vec<&str> = may.rules().iter().map(AsRef::as_ref).collect();
        let by: Vec<&str> = may.by().iter().map(|id| id.name()).collect();
        self.event(EventKind::GlassOpened)
            .subject(format!("break-glass:{}", grant.body().name).as_str())
            .allowed()
            .detail("number", grant.number())
            .detail("grant", hex::encode(grant.digest()))
            .detail("rules", rules.join(" "))
            .detail("by", by.join(" "))
            .detail("ttl_seconds", may.ttl().as_secs())
    }
}
