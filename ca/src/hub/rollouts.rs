//! Performs the stages of a candidate: written and recorded first, then in force. One at a time.

use std::sync::Arc;
use std::time::Duration;

use edgeward_audit::Event;
use edgeward_audit::event::{Actor, EventKind};
use edgeward_identity::Timestamp;
use edgeward_policy::{CompiledPolicy, SourceFile};

use super::{Hub, HubFault};
use crate::rollout::{Act, Denials, Part, Percent, Phase, Plan, Rise, Rollout};
use crate::store::policies::PolicyRow;

mod tally;

/// How often it is looked whether a stage goes on.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The candidate that is being tried.
#[derive(Debug)]
pub(super) struct Trial {
    rollout: Rollout,
    candidate: Arc<CompiledPolicy>,
    /// Reports of denials before the first stage, and in this one: of the nodes of the stage, and of the others.
    before: (u64, u64),
    now: (u64, u64),
    /// Leaf of the last report that was counted.
    counted: Option<u64>,
}

/// A candidate as an operator hands it over.
#[derive(Debug)]
pub struct Begin {
    pub policy: Arc<CompiledPolicy>,
    pub row: PolicyRow,
    pub files: Vec<SourceFile>,
    pub plan: Plan,
    pub change: edgeward_policy::space::Change,
    pub return_signature: Option<String>,
}

/// Where the candidate stands now.
#[derive(Clone, Debug)]
pub struct Progress {
    pub rollout: Rollout,
    pub denials: Denials,
    /// Active nodes for which the candidate is in force, by name.
    pub nodes: Vec<String>,
    /// How many of them have a session.
    pub connected: usize,
}

/// Why a candidate is not begun, stopped or ended. The operator's, but for the last.
#[derive(Debug, thiserror::Error)]
pub enum RolloutFault {
    #[error("no policy is in force yet: apply the first one as a whole")]
    NoBase,
    #[error(
        "policy {0} is being staged: let it finish, or abort it (`edgeward policy stage abort`)"
    )]
    Open(u64),
    #[error("no policy is being staged")]
    NotOpen,
    #[error("the stage is {0}")]
    Phase(&'static str),
    #[error("the next policy is number {0}: somebody else applied one, look at it first")]
    Number(u64),
    #[error("policy {number} cannot be put into force again: {reason}")]
    Base { number: u64, reason: String },
    #[error(transparent)]
    Hub(#[from] HubFault),
}

impl RolloutFault {
    /// Stable reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoBase => "policy_no_base",
            Self::Open(_) => "policy_staged",
            Self::NotOpen => "policy_not_staged",
            Self::Phase(_) => "policy_stage_phase",
            Self::Number(_) => "policy_number",
            Self::Base { .. } => "policy_invalid",
            Self::Hub(_) => "internal",
        }
    }
}

impl<E: Into<HubFault>> From<Ours<E>> for RolloutFault {
    fn from(fault: Ours<E>) -> Self {
        Self::Hub(fault.0.into())
    }
}

/// A fault of the store or the log on the way.
struct Ours<E>(E);

impl Trial {
    fn part(&self) -> Part {
        Part::restored(self.candidate.hash(), self.rollout.threshold)
    }
}

impl Hub {
    /// Tries a candidate on the nodes of its first stage.
    pub(crate) async fn begin_rollout(&self, begin: Begin, by: &Actor) -> Result<(), RolloutFault> {
        let mut trial = self.trial.lock().await;
        let base = self.policy().ok_or(RolloutFault::NoBase)?;
        let now = self.clock.now();
        let percent = begin.plan.steps().first().copied().unwrap_or(Percent::ALL);
        let part = self.part_of(&begin.policy, percent);
        let rollout = Rollout {
            number: begin.row.number,
            base: base.version(),
            plan: begin.plan,
            step: 0,
            threshold: part.threshold(),
            begun: now,
            entered: now,
            leaf: self.store.last_leaf().await.map_err(Ours)?,
            since: now,
            phase: Phase::Holding,
            watched: true,
            change: begin.change,
            return_signature: begin.return_signature,
        };
        let event = self
            .staged(&rollout, &part, by)
            .detail("hash", &begin.row.hash)
            .detail("signature", &begin.row.signature);
        let mut tx = self.store.begin("policy.stage").await.map_err(Ours)?;
        if let Some(open) = tx.open_rollout().await.map_err(Ours)? {
            return Err(RolloutFault::Open(open.number));
        }
        let expected = tx.policy_number().await.map_err(Ours)?.saturating_add(1);
        if begin.row.number != expected {
            return Err(RolloutFault::Number(expected));
        }
        tx.add_policy(&begin.row, &begin.files)
            .await
            .map_err(Ours)?;
        tx.put_rollout(&rollout).await.map_err(Ours)?;
        self.audit.record_in(&mut tx, event).await.map_err(Ours)?;
        tx.commit().await.map_err(Ours)?;
        self.stage_policy(begin.policy.clone(), part);
        *trial = Some(self.trial_of(rollout, begin.policy).await?);
        Ok(())
    }

    /// After a start: the stage is as it was, and its hold begins again, for nobody watched meanwhile.
    pub(crate) async fn take_up_rollout(
        &self,
        rollout: Rollout,
        candidate: Arc<CompiledPolicy>,
    ) -> Result<(), RolloutFault> {
        let rollout = rollout.held_again(self.clock.now());
        let part = Part::restored(candidate.hash(), rollout.threshold);
        tracing::info!(
            number = rollout.number,
            percent = rollout.percent().get(),
            phase = rollout.phase.as_str(),
            "a policy is being staged: going on"
        );
        self.stage_policy(candidate.clone(), part);
        *self.trial.lock().await = Some(self.trial_of(rollout, candidate).await?);
        Ok(())
    }

    /// What there is to see of the candidate.
    pub(crate) async fn rollout(&self) -> Result<Option<Progress>, RolloutFault> {
        let mut trial = self.trial.lock().await;
        let Some(trial) = trial.as_mut() else {
            return Ok(None);
        };
        self.count_denials(trial).await?;
        Ok(Some(self.progress(trial)))
    }

    pub(crate) async fn pause_rollout(&self, by: &Actor) -> Result<(), RolloutFault> {
        let mut trial = self.trial.lock().await;
        let trial = trial.as_mut().ok_or(RolloutFault::NotOpen)?;
        if trial.rollout.phase != Phase::Holding {
            return Err(RolloutFault::Phase(trial.rollout.phase.as_str()));
        }
        let event = self
            .about(&trial.rollout, EventKind::PolicyPaused, by)
            .code("paused");
        self.write(trial, trial.rollout.paused("an operator stopped it"), event)
            .await
    }

    pub(crate) async fn resume_rollout(&self, by: &Actor) -> Result<(), RolloutFault> {
        let mut trial = self.trial.lock().await;
        let trial = trial.as_mut().ok_or(RolloutFault::NotOpen)?;
        if !matches!(trial.rollout.phase, Phase::Paused(_)) {
            return Err(RolloutFault::Phase(trial.rollout.phase.as_str()));
        }
        let event = self
            .about(&trial.rollout, EventKind::PolicyResumed, by)
            .allowed();
        let resumed = trial.rollout.resumed(self.clock.now());
        self.write(trial, resumed, event).await
    }

    /// An operator ends it: what was in force before is, everywhere, under the number of `row`.
    pub(crate) async fn abort_rollout(
        &self,
        row: PolicyRow,
        by: &Actor,
    ) -> Result<(), RolloutFault> {
        let mut trial = self.trial.lock().await;
        let open = trial.as_ref().ok_or(RolloutFault::NotOpen)?;
        let event = self
            .about(&open.rollout, EventKind::PolicyReturned, by)
            .allowed()
            .code("aborted");
        self.return_to_base(open, row, (event, by)).await?;
        *trial = None;
        Ok(())
    }

    /// Goes on, stops or goes back if it is time. What fails is tried again the next time.
    pub(crate) async fn look_after_rollout(&self) {
        if let Err(fault) = self.turn_rollout().await {
            tracing::error!(%fault, "the stages of a policy cannot go on");
        }
    }

    async fn turn_rollout(&self) -> Result<(), RolloutFault> {
        let mut place = self.trial.lock().await;
        let Some(trial) = place.as_mut() else {
            return Ok(());
        };
        if trial.rollout.phase != Phase::Holding {
            return Ok(());
        }
        self.count_denials(trial).await?;
        let now = self.clock.now();
        let progress = self.progress(trial);
        if progress.connected == 0 {
            trial.rollout = trial.rollout.held_again(now);
        }
        match trial.rollout.poll(now, &progress.denials) {
            Act::Wait => Ok(()),
            Act::Widen(percent) => self.widen(trial, percent, now).await,
            Act::Pause(rise) => self.stop(trial, rise).await,
            Act::Finish => {
                self.finish(trial).await?;
                *place = None;
                Ok(())
            }
            Act::Return(rise) => {
                self.return_by_itself(trial, rise).await?;
                *place = None;
                Ok(())
            }
        }
    }

    async fn widen(
        &self,
        trial: &mut Trial,
        percent: Percent,
        now: Timestamp,
    ) -> Result<(), RolloutFault> {
        let part = self.part_of(&trial.candidate, percent);
        let leaf = self.store.last_leaf().await.map_err(Ours)?;
        let rollout = trial.rollout.widened(part.threshold(), leaf, now);
        let part = Part::restored(trial.candidate.hash(), rollout.threshold);
        let event = self.staged(&rollout, &part, &Actor::Cloud);
        self.write(trial, rollout, event).await?;
        self.stage_policy(trial.candidate.clone(), part);
        *trial = self
            .trial_of(trial.rollout.clone(), trial.candidate.clone())
            .await?;
        Ok(())
    }

    async fn stop(&self, trial: &mut Trial, rise: Rise) -> Result<(), RolloutFault> {
        let why = match trial.rollout.reopens() {
            true => {
                format!("{rise}; going back would open again what the candidate closed: look at it")
            }
            false => format!("{rise}; the operator did not sign for going back: look at it"),
        };
        tracing::error!(number = trial.rollout.number, %why, "the stages of a policy stopped");
        metrics::counter!("edgeward_policy_stages_paused_total").increment(1);
        let event = self
            .about(&trial.rollout, EventKind::PolicyPaused, &Actor::Cloud)
            .code("denials_rise")
            .detail("alert", "denials rise")
            .detail("found", rise.found)
            .detail("expected", rise.expected)
            .detail("tolerated", rise.tolerated);
        let paused = trial.rollout.paused(&why);
        self.write(trial, paused, event).await
    }

    async fn finish(&self, trial: &mut Trial) -> Result<(), RolloutFault> {
        let event = self
            .about(&trial.rollout, EventKind::PolicyApplied, &Actor::Cloud)
            .allowed()
            .detail("staged", true);
        let done = trial.rollout.ended(Phase::Done);
        self.write(trial, done, event).await?;
        self.set_policy(trial.candidate.clone());
        Ok(())
    }

    async fn return_by_itself(&self, trial: &Trial, rise: Rise) -> Result<(), RolloutFault> {
        let rollout = &trial.rollout;
        tracing::error!(number = rollout.number, %rise, "a staged policy is taken back");
        let (tried, base) = (
            self.kept(rollout.number).await?,
            self.kept(rollout.base).await?,
        );
        let row = PolicyRow {
            number: rollout.number.saturating_add(1),
            applied: self.clock.now(),
            applied_by: Actor::Cloud.to_string(),
            key: tried.0.key,
            signature: rollout.return_signature.clone().unwrap_or_default(),
            origin: Some(rollout.base),
            ..base.0
        };
        let event = self
            .about(rollout, EventKind::PolicyReturned, &Actor::Cloud)
            .allowed()
            .code("denials_rise")
            .detail("alert", "denials rise")
            .detail("found", rise.found)
            .detail("expected", rise.expected)
            .detail("tolerated", rise.tolerated);
        self.return_to_base(trial, row, (event, &Actor::Cloud))
            .await
    }

    /// What was in force before is again, and what the candidate installed goes with it: its nodes go back to the releases
    /// that the policy before names. All of it or nothing.
    async fn return_to_base(
        &self,
        trial: &Trial,
        row: PolicyRow,
        (event, by): (Event, &Actor),
    ) -> Result<(), RolloutFault> {
        let rollout = &trial.rollout;
        let (kept, files) = self.kept(rollout.base).await?;
        let (number, hash) = (row.number, kept.hash);
        let broken = |reason: String| RolloutFault::Base {
            number: rollout.base,
            reason,
        };
        let (files, compiled) = tokio::task::spawn_blocking(move || {
            let compiled = CompiledPolicy::compile_stored(&files, number);
            (files, compiled)
        })
        .await
        .map_err(|error| broken(error.to_string()))?;
        let policy = compiled.map_err(|report| {
            let first = report.diagnostics.first().map(ToString::to_string);
            broken(first.unwrap_or_default())
        })?;
        if policy.report().hash != hash || row.hash != hash {
            return Err(broken("its sources are not what was applied".to_owned()));
        }
        let event = event
            .detail("returned_to", rollout.base)
            .detail("as", number)
            .detail("hash", &hash)
            .detail("signature", &row.signature);
        let _turn = self.no_words().await;
        let going = self.above(&self.progress(trial).nodes, &policy);
        let mut tx = self.store.begin("policy.return").await.map_err(Ours)?;
        let expected = tx.policy_number().await.map_err(Ours)?.saturating_add(1);
        if number != expected {
            return Err(RolloutFault::Number(expected));
        }
        tx.add_policy(&row, &files).await.map_err(Ours)?;
        let ended = rollout.ended(Phase::Returned);
        tx.put_rollout(&ended).await.map_err(Ours)?;
        self.audit.record_in(&mut tx, event).await.map_err(Ours)?;
        let reason = format!("policy {} was taken back", rollout.number);
        let changes = self.put_back(&mut tx, &going, (by, &reason)).await?;
        tx.commit().await.map_err(Ours)?;
        self.set_policy(Arc::new(policy));
        self.go_back(&going, changes);
        Ok(())
    }

    async fn kept(&self, number: u64) -> Result<(PolicyRow, Vec<SourceFile>), RolloutFault> {
        let kept = self.store.policy(number).await.map_err(Ours)?;
        kept.ok_or_else(|| RolloutFault::Base {
            number,
            reason: "it is not in the store".to_owned(),
        })
    }

    async fn write(
        &self,
        trial: &mut Trial,
        rollout: Rollout,
        event: Event,
    ) -> Result<(), RolloutFault> {
        let mut tx = self.store.begin("policy.stage").await.map_err(Ours)?;
        tx.put_rollout(&rollout).await.map_err(Ours)?;
        self.audit.record_in(&mut tx, event).await.map_err(Ours)?;
        tx.commit().await.map_err(Ours)?;
        trial.rollout = rollout;
        Ok(())
    }

    fn part_of(&self, policy: &CompiledPolicy, percent: Percent) -> Part {
        let names = self.active_names();
        Part::new(policy.hash(), percent, names.iter().map(String::as_str))
    }

    fn staged(&self, rollout: &Rollout, part: &Part, by: &Actor) -> Event {
        let active = self.active_names();
        let nodes = active.iter().filter(|name| part.holds(name)).count();
        self.about(rollout, EventKind::PolicyStaged, by)
            .allowed()
            .detail("nodes", nodes)
            .detail("of", active.len())
            .detail("hold_seconds", rollout.plan.hold().as_secs())
    }

    fn about(&self, rollout: &Rollout, kind: EventKind, by: &Actor) -> Event {
        Event::new(self.clock.now(), by.clone(), kind)
            .subject(format!("policy:{}", rollout.number).as_str())
            .detail("percent", rollout.percent().get())
            .detail("base", rollout.base)
    }
}
