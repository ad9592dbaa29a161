//! The desk over a real store, on a turned clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use edgeward_audit::event::Actor;
use edgeward_audit::query::Filter;
use edgeward_audit::record::BootId;
use edgeward_identity::Clock;
use edgeward_identity::testing::TurnedClock;
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::alerts::desk::{Cutter, Desk, Parts};
use crate::alerts::load::DEFAULTS;
use crate::audit::AuditLog;
use crate::config::Alerts;
use crate::config::alerts::{Sink, Target};
use crate::dial::Endpoint;
use crate::store::Store;
use crate::store::alerts::ActRow;
use crate::store_tests;

/// Notes whom it cut off.
struct Axe {
    active: usize,
    cut: Mutex<Vec<String>>,
    /// What is asked for cannot be written.
    is_stuck: AtomicBool,
    asked: AtomicU32,
}

#[async_trait]
impl Cutter for Axe {
    fn active(&self) -> usize {
        self.active
    }

    async fn quarantine(&self, act: &ActRow, why: &str) -> Outcome {
        assert!(why.contains("event"), "{why}");
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.is_stuck.load(Ordering::SeqCst) {
            return Outcome::Failed;
        }
        self.cut.lock().push(act.node.clone());
        Outcome::Quarantined
    }
}

pub(super) struct Scene {
    pub(super) store: Store,
    audit: Arc<AuditLog>,
    pub(super) clock: Arc<TurnedClock>,
    axe: Arc<Axe>,
    pub(super) config: Alerts,
    rules: String,
}

impl Scene {
    pub(super) async fn new(store: &Store, boot: u8) -> Self {
        let clock = TurnedClock::at(START);
        let boot = BootId::from_bytes([boot; 16]);
        let (audit, writer) = AuditLog::open(store.clone(), id(Kind::Cloud, "c"), boot, START)
            .await
            .unwrap();
        tokio::spawn(writer.run(CancellationToken::new()));
        // Taken by nobody in these tests: its words stay in the queue.
        let sink = Sink {
            name: "siem".to_owned(),
            least: Severity::Minor,
            to: Target::Syslog {
                server: Endpoint {
                    host: "127.0.0.1".to_owned(),
                    port: 9,
                    tls: None,
                },
                facility: 14,
            },
        };
        Self {
            store: store.clone(),
            audit: Arc::new(audit),
            clock,
            axe: Arc::new(Axe {
                active: 100,
                cut: Mutex::default(),
                is_stuck: AtomicBool::new(false),
                asked: AtomicU32::new(0),
            }),
            config: Alerts {
                rules: None,
                defaults: true,
                quarantine: true,
                quarantine_per_hour: None,
                sinks: vec![sink],
            },
            rules: DEFAULTS.to_owned(),
        }
    }

    /// Runs until it is dropped; begins where the one before left.
    fn run(&self) -> DropGuard {
        let stop = CancellationToken::new();
        tokio::spawn(self.desk().run(self.axe.clone(), stop.clone()));
        stop.drop_guard()
    }

    /// The same, and words are said.
    pub(super) fn run_with_sinks(&self) -> DropGuard {
        let (desk, stop) = (self.desk(), CancellationToken::new());
        tokio::spawn(desk.clone().run_sinks(stop.clone()));
        tokio::spawn(desk.run(self.axe.clone(), stop.clone()));
        stop.drop_guard()
    }

    pub(super) fn desk(&self) -> Arc<Desk> {
        Desk::new(Parts {
            store: self.store.clone(),
            audit: self.audit.clone(),
            clock: self.clock.clone(),
            config: self.config.clone(),
            rules: rules(&self.rules),
        })
    }

    pub(super) async fn refuse_tokens(&self, times: usize) {
        for _ in 0..times {
            let event = Event {
                time: START,
                ..refused_token("192.0.2.1")
            };
            self.audit.record(event).await.unwrap();
        }
    }

    async fn forked(&self, node: &str) {
        let event = Event::new(START, Actor::Cloud, EventKind::JournalForked)
            .subject(id(Kind::Node, node))
            .code("audit_equivocation")
            .detail("proof", "equivocation");
        self.audit.record(event).await.unwrap();
    }

    async fn approved(&self, node: &str, times: usize) {
        for _ in 0..times {
            let event = Event::new(self.clock.now(), Actor::Cloud, EventKind::NodeApproved)
                .subject(id(Kind::Node, node));
            self.audit.record(event).await.unwrap();
        }
    }

    /// Waits until somebody has taken the duty, or kept it, at this moment of the clock.
    async fn until_kept(&self) {
        let wanted = self.clock.now().plus(Duration::from_secs(30));
        until(async || {
            let mut tx = self.store.begin("test").await.unwrap();
            tx.alert_duty_until().await.unwrap() == Some(wanted)
        })
        .await;
        // And stands.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    async fn alerts(&self) -> Vec<(String, State, u64, Option<String>)> {
        let found = self.store.alerts(&[], 1000).await.unwrap();
        found
            .into_iter()
            .rev()
            .map(|alert| (alert.rule, alert.state, alert.hits, alert.act))
            .collect()
    }

    pub(super) async fn words(&self) -> u64 {
        self.store.notices_of("siem").await.unwrap().waiting
    }

    async fn recorded(&self, kind: EventKind) -> usize {
        let (events, _) = self
            .store
            .events(&Filter::default(), None, 1000)
            .await
            .unwrap();
        events
            .iter()
            .filter(|found| found.event.kind == kind)
            .count()
    }
}

pub(super) async fn until<F: Future<Output = bool>>(mut check: impl FnMut() -> F) {
    for _ in 0..1500 {
        if check().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it never came true");
}

store_tests! {
    async fn an_alert_is_written_once_over_restarts_and_what_was_counted_goes_on(store) {
        let scene = Scene::new(&store, 1).await;
        let first = scene.run();
        until(async || scene.store.alert_position().await.unwrap().is_some()).await;
        scene.refuse_tokens(6).await;
        drop(first);
        // Some were counted before the end, some are found after it: ten together are enough.
        let second = scene.run();
        scene.refuse_tokens(4).await;
        until(async || !scene.alerts().await.is_empty()).await;
        drop(second);
        let third = scene.run();
        scene.refuse_tokens(1).await;
        until(async || scene.alerts().await[0].2 == 2).await;
        drop(third);
        let alerts = scene.alerts().await;
        assert_eq!(alerts, [("token-brute-force".to_owned(), State::Open, 2, None)]);
        assert_eq!(scene.recorded(EventKind::AlertRaised).await, 1);
        assert_eq!(scene.words().await, 1, "said once");
    }

    async fn two_nodes_that_signed_it_are_cut_off_and_the_third_is_left_to_people(store) {
        let scene = Scene::new(&store, 1).await;
        let _run = scene.run();
        until(async || scene.store.alert_position().await.unwrap().is_some()).await;
        // What nobody signed, and what a node says of another, cuts nobody off.
        let unproved = Event::new(START, Actor::Cloud, EventKind::JournalForked)
            .subject(id(Kind::Node, "honest"))
            .code("audit_rolled_back");
        scene.audit.record(unproved).await.unwrap();
        for node in ["a", "b", "c"] {
            scene.forked(node).await;
        }
        until(async || scene.axe.cut.lock().len() == 2).await;
        until(async || scene.alerts().await.len() == 4).await;
        until(async || scene.alerts().await.iter().all(|alert| !alert.3.as_deref().unwrap_or("").contains("intended"))).await;
        assert_eq!(*scene.axe.cut.lock(), ["a", "b"]);
        let acts: Vec<_> = scene.alerts().await.into_iter().map(|alert| alert.3).collect();
        let said = |text: &str| Some(text.to_owned());
        assert_eq!(acts, [None, said("quarantined a"), said("quarantined b"), said("capped c")]);
        // An hour later there is room again, for what is new.
        scene.clock.turn(Duration::from_secs(3601));
        scene.forked("old").await;
        let event = Event::new(at(3601), Actor::Cloud, EventKind::NodeCloned)
            .subject(id(Kind::Node, "d"))
            .detail("proof", "clone");
        scene.audit.record(event).await.unwrap();
        until(async || scene.axe.cut.lock().len() == 3).await;
        assert_eq!(scene.axe.cut.lock()[2], "d");
        until(async || scene.alerts().await.iter().any(|alert| alert.3 == said("too_old old"))).await;
    }

    async fn a_quarantine_that_cannot_be_written_is_tried_again_counts_meanwhile_and_ends_when_it_is_old(store) {
        let scene = Scene::new(&store, 1).await;
        scene.axe.is_stuck.store(true, Ordering::SeqCst);
        let first = scene.run();
        until(async || scene.store.alert_position().await.unwrap().is_some()).await;
        for node in ["a", "b", "c"] {
            scene.forked(node).await;
        }
        until(async || scene.axe.asked.load(Ordering::SeqCst) >= 6).await;
        let said = |text: &str| Some(text.to_owned());
        let acts = async || -> Vec<_> {
            scene.alerts().await.into_iter().map(|alert| alert.3).collect()
        };
        until(async || acts().await == [said("intended a"), said("intended b"), said("capped c")]).await;
        // Nor does a restart end it.
        drop(first);
        let _second = scene.run();
        let before = scene.axe.asked.load(Ordering::SeqCst);
        until(async || scene.axe.asked.load(Ordering::SeqCst) > before).await;
        assert!(scene.axe.cut.lock().is_empty());
        scene.axe.is_stuck.store(false, Ordering::SeqCst);
        until(async || acts().await == [said("quarantined a"), said("quarantined b"), said("capped c")]).await;
        assert_eq!(*scene.axe.cut.lock(), ["a", "b"]);
        // What stays stuck is not done once it is no news any more.
        scene.clock.turn(Duration::from_secs(3601));
        scene.axe.is_stuck.store(true, Ordering::SeqCst);
        let event = Event::new(at(3601), Actor::Cloud, EventKind::NodeCloned)
            .subject(id(Kind::Node, "d"))
            .detail("proof", "clone");
        scene.audit.record(event).await.unwrap();
        until(async || acts().await.contains(&said("intended d"))).await;
        scene.clock.turn(Duration::from_secs(901));
        until(async || acts().await.contains(&said("too_old d"))).await;
    }

    async fn what_was_waited_for_is_waited_for_after_an_outage_that_was_longer_than_any_rule(store) {
        let mut scene = Scene::new(&store, 1).await;
        scene.rules = rule("absence = { type = [\"node.approved\"] }\nby = [\"subject\"]\nwithin = \"10m\"");
        let first = scene.run();
        scene.until_kept().await;
        scene.approved("a", 1).await;
        let last = store.last_leaf().await.unwrap();
        until(async || store.alert_position().await.unwrap() >= last || {
            scene.clock.turn(Duration::from_secs(1));
            false
        })
        .await;
        drop(first);
        scene.clock.turn(Duration::from_secs(7200));
        let _second = scene.run();
        scene.until_kept().await;
        assert!(scene.alerts().await.is_empty(), "it may come first");
        scene.clock.turn(GRACE + Duration::from_secs(1));
        until(async || !scene.alerts().await.is_empty()).await;
        // What comes ends it.
        scene.approved("a", 1).await;
        until(async || scene.alerts().await[0].1 == State::Ended).await;
    }

    async fn what_was_missed_and_said_is_not_said_again_after_a_restart_though_its_alert_is_over(store) {
        let mut scene = Scene::new(&store, 1).await;
        let seldom = rule("threshold = { type = [\"node.removed\"] }\nwithin = \"1d\"");
        let seldom = seldom.replace("alert.a", "alert.b");
        let missed = rule("absence = { type = [\"node.approved\"] }\nby = [\"subject\"]\nwithin = \"10m\"");
        scene.rules = format!("{seldom}{missed}");
        let first = scene.run();
        scene.until_kept().await;
        scene.approved("a", 1).await;
        // It is looked at before its time is over.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        scene.clock.turn(Duration::from_secs(601));
        until(async || !scene.alerts().await.is_empty()).await;
        let mut alert = store.alerts(&[], 1).await.unwrap().remove(0);
        alert.acknowledge("li", scene.clock.now());
        let mut tx = store.begin("test").await.unwrap();
        tx.put_alert(&alert).await.unwrap();
        tx.commit().await.unwrap();
        scene.clock.turn(Duration::from_secs(3700));
        until(async || scene.alerts().await[0].1 == State::Ended).await;
        scene.until_kept().await;
        drop(first);
        let _second = scene.run();
        scene.clock.turn(Duration::from_secs(1));
        scene.until_kept().await;
        scene.clock.turn(GRACE + Duration::from_secs(1));
        tokio::time::sleep(Duration::from_millis(2500)).await;
        assert_eq!(scene.alerts().await.len(), 1);
        // Once it came it is waited for again.
        scene.approved("a", 1).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        scene.clock.turn(Duration::from_secs(602));
        until(async || scene.alerts().await.len() == 2).await;
    }

    async fn a_block_that_cannot_be_read_again_silences_nothing_that_comes(store) {
        let mut scene = Scene::new(&store, 1).await;
        let many = rule("threshold = { type = [\"node.approved\"], count = 600 }\nwithin = \"1h\"");
        scene.rules = format!("{DEFAULTS}{many}");
        let first = scene.run();
        scene.until_kept().await;
        scene.approved("a", 600).await;
        until(async || scene.alerts().await.len() == 1).await;
        drop(first);
        store.make_blocks(512).await;
        let mut tx = store.begin("test").await.unwrap();
        sqlx::query("UPDATE event_parts SET columns = bodies WHERE block = 1")
            .execute(tx.connection())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let _second = scene.run();
        scene.clock.turn(Duration::from_secs(1));
        scene.until_kept().await;
        // The other blocks count on.
        scene.approved("a", 255).await;
        scene.refuse_tokens(10).await;
        until(async || scene.alerts().await.len() == 2).await;
        assert_eq!(scene.alerts().await[0].2, 1);
        scene.approved("a", 3).await;
        until(async || scene.alerts().await[0].2 > 1).await;
    }

    async fn whoever_has_not_the_duty_writes_nothing(store) {
        let scene = Scene::new(&store, 1).await;
        let mut tx = scene.store.begin("test").await.unwrap();
        assert!(tx.take_alert_duty("other", START, Duration::from_secs(30)).await.unwrap());
        assert!(!tx.take_alert_duty("me", START, Duration::from_secs(30)).await.unwrap());
        assert!(!tx.move_alert_position("me", 5).await.unwrap());
        assert!(tx.move_alert_position("other", 5).await.unwrap());
        assert!(!tx.move_alert_position("other", 4).await.unwrap(), "never backwards");
        // Once it has ended, another one takes it, where it stands.
        assert!(tx.take_alert_duty("me", at(30), Duration::from_secs(30)).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(scene.store.alert_position().await.unwrap(), Some(5));
    }
}
