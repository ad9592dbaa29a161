//! The agent's half of enforcement over a real guard, a real volume and real programs: without a cloud.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use edgeward_agent::apps::enforcing::{Enforcing, enforce};
use edgeward_agent::apps::floors::ledger;
use edgeward_agent::apps::launch::{Places, Running, Wanted, book_of};
use edgeward_agent::apps::level;
use edgeward_agent::apps::records::{Noticed, Teller};
use edgeward_agent::apps::runs::{NotGranted, Rights, Said, Stage};
use edgeward_agent::enforce::{RecordRefused, Recorder};
use edgeward_apps::digest::Digest;
use edgeward_apps::manifest::{Chunk, Entry, EntryPoint, File, Manifest};
use edgeward_apps::name::AppName;
use edgeward_audit::Event;
use edgeward_guard::book::Mode;
use edgeward_identity::{SystemClock, Timestamp};
use edgeward_runtime::shutdown::Tasks;
use edgeward_tests::{bin_dir, require_root};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tokio_util::sync::CancellationToken;

const UID: u32 = 61_185;
/// Debian's own programs make up the application.
const PROGRAMS: [&str; 3] = ["sh", "sleep", "cat"];
const GROUPS: &str = "/sys/fs/cgroup";

/// What happened, in order.
#[derive(Default)]
struct Story(std::sync::Mutex<Vec<String>>);

/// One node's ground: volume, groups, guard.
struct Ground {
    folder: tempfile::TempDir,
    guard: Option<Child>,
    story: Arc<Story>,
}

/// An agent's half, which ends with it.
struct Agent {
    enforcing: Enforcing,
    _ends: tokio_util::sync::DropGuard,
}

#[async_trait]
impl Recorder for Story {
    async fn record(&self, event: Event) -> Result<(), RecordRefused> {
        self.record_after(event);
        Ok(())
    }

    fn record_after(&self, event: Event) {
        self.say(format!("record {}", event.kind.name()));
    }
}

#[async_trait]
impl Rights for Story {
    async fn grant(&self, running: &Running) -> Result<(), NotGranted> {
        self.say(format!("grant {}", running.version));
        Ok(())
    }

    async fn withdraw(&self, _: &AppName) {
        self.say("withdraw");
    }

    async fn ended(&self, _: &AppName, lasting: bool) {
        self.say(format!("ended {lasting}"));
    }
}

#[async_trait]
impl Noticed for Story {
    async fn level(&self, word: &'static str) {
        self.say(format!("level {word}"));
    }

    async fn denied(&self, _: &str) {
        self.say("denied");
    }
}

impl Story {
    fn say(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Ground {
    /// In a mount namespace of this thread's: threads and processes that come from it share it.
    fn new() -> anyhow::Result<Self> {
        require_root()?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
        let ground = Self {
            folder,
            guard: None,
            story: Arc::default(),
        };
        for part in [ground.volume(), ground.state()] {
            std::fs::create_dir(&part)?;
        }
        let options = Some("mode=755");
        mount(
            Some("tmpfs"),
            &ground.volume(),
            Some("tmpfs"),
            MsFlags::MS_NOSUID,
            options,
        )?;
        mount(
            Some("cgroup2"),
            GROUPS,
            Some("cgroup2"),
            MsFlags::empty(),
            none,
        )?;
        Ok(ground)
    }

    fn volume(&self) -> PathBuf {
        self.folder.path().join("volume")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("guard.sock")
    }

    fn cgroup(&self) -> PathBuf {
        Path::new(GROUPS).join(format!("edgeward-exec-test-{}", std::process::id()))
    }

    fn start_guard(&mut self) -> anyhow::Result<()> {
        let program = bin_dir()?.join("edgeward-guard");
        let guard = Command::new(&program)
            .arg("supervise")
            .args([self.volume(), self.socket(), self.cgroup()])
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        self.guard = Some(guard);
        Ok(())
    }

    /// Supervisor and watch at once, as when memory runs out.
    fn kill_guard(&mut self) -> anyhow::Result<()> {
        let Some(mut guard) = self.guard.take() else {
            return Ok(());
        };
        let children = format!("/proc/{0}/task/{0}/children", guard.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        guard.kill()?;
        guard.wait()?;
        for child in children.split_whitespace() {
            // The watch, unless it has gone with its supervisor.
            let _status = Command::new("kill").args(["-9", child]).status()?;
        }
        Ok(())
    }

    /// An agent that begins: it knows nothing of one before it.
    fn agent(&self) -> Agent {
        let token = CancellationToken::new();
        let mut tasks = Tasks::new(token.clone());
        let teller = Teller {
            node: "spiffe://plant.example/node/edge-1".parse().unwrap(),
            clock: Arc::new(SystemClock),
            recorder: self.story.clone(),
        };
        let places = Places {
            cgroup: self.cgroup(),
            state: self.state(),
            workload: None,
        };
        // Nobody forbids anything: that is tested where the words are made.
        let (_, director) = tokio::sync::watch::channel(None);
        let (_, slice) = tokio::sync::watch::channel(None);
        let said = Said {
            director,
            slice,
            ledger: ledger().0,
        };
        let enforcing = enforce(
            &self.socket(),
            (places, said),
            teller,
            self.story.clone(),
            self.story.clone(),
            &mut tasks,
            &token,
        );
        tokio::spawn(tasks.run());
        Agent {
            enforcing,
            _ends: token.drop_guard(),
        }
    }

    /// Puts the application in its place, as an installation does.
    fn install(&self, version: &str) -> anyhow::Result<Wanted> {
        let tree = self.volume().join("acme/collector").join(version);
        std::fs::create_dir_all(tree.join("bin"))?;
        let mut entries = BTreeMap::new();
        let mut put = |path: &str, bytes: &[u8]| -> anyhow::Result<()> {
            let digest = Digest::of(bytes);
            let size = u32::try_from(bytes.len())?;
            std::fs::write(tree.join(path), bytes)?;
            std::fs::set_permissions(tree.join(path), PermissionsExt::from_mode(0o555))?;
            let file = File {
                digest,
                size: size.into(),
                executable: true,
                chunks: vec![Chunk { digest, size }],
            };
            entries.insert(path.parse()?, Entry::File(file));
            Ok(())
        };
        for program in PROGRAMS {
            put(
                &format!("bin/{program}"),
                &std::fs::read(format!("/usr/bin/{program}"))?,
            )?;
        }
        put("bin/version", version.as_bytes())?;
        std::fs::set_permissions(tree.join("bin"), PermissionsExt::from_mode(0o555))?;
        std::fs::set_permissions(&tree, PermissionsExt::from_mode(0o555))?;
        let script = "/app/bin/cat /app/bin/version > /state/ran; exec /app/bin/sleep 1000";
        let entry = EntryPoint {
            path: "bin/sh".parse()?,
            args: vec!["-c".to_owned(), script.to_owned()],
            env: BTreeMap::new(),
        };
        let mut manifest =
            Manifest::new("acme/collector".parse()?, version.parse()?, entry, entries)?;
        manifest.host_libraries = true;
        let digest = Digest::of(&manifest.to_json()?);
        Ok(Wanted {
            manifest: Arc::new(manifest),
            digest,
            tree,
            until: Timestamp::from_millis(u64::MAX),
            uid: UID,
        })
    }

    fn processes(&self) -> Vec<String> {
        let path = self.cgroup().join("acme@collector/cgroup.procs");
        let listed = std::fs::read_to_string(path).unwrap_or_default();
        listed.lines().map(ToOwned::to_owned).collect()
    }

    fn ran(&self) -> String {
        let path = self.state().join("acme@collector/ran");
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _gone = self.kill_guard();
        let group = self.cgroup();
        let _gone = std::fs::write(group.join("cgroup.kill"), "1");
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            let _not_yet = std::fs::remove_dir(group.join("acme@collector"));
            if std::fs::remove_dir(&group).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Agent {
    async fn run(&self, wanted: &Wanted) -> anyhow::Result<()> {
        self.hold(&[wanted]).await?;
        let app = wanted.app().clone();
        self.enforcing
            .runs
            .want([(app, wanted.clone())].into())
            .await;
        self.until_stage(Some(Stage::Running)).await
    }

    async fn hold(&self, wanted: &[&Wanted]) -> anyhow::Result<()> {
        let files = book_of(wanted.iter().map(|wanted| wanted.manifest.as_ref()));
        let mut state = self.enforcing.guard.state();
        let there = state.wait_for(|state| state.level.is_some());
        tokio::time::timeout(Duration::from_secs(20), there).await??;
        self.enforcing.guard.book(Mode::Enforce, files).await?;
        Ok(())
    }

    async fn until_stage(&self, wanted: Option<Stage>) -> anyhow::Result<()> {
        let mut stages = self.enforcing.runs.stages();
        let found = stages.wait_for(|stages| stages.values().next().copied() == wanted);
        tokio::time::timeout(Duration::from_secs(20), found).await??;
        Ok(())
    }
}

/// The namespace is the thread's, so everything runs in this one and in those that it makes.
fn on_own_ground<F: Future<Output = anyhow::Result<()>>>(
    story: impl FnOnce(Ground) -> F,
) -> anyhow::Result<()> {
    let ground = Ground::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(story(ground))
}

async fn eventually(mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        anyhow::ensure!(Instant::now() < end, "it did not happen within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

#[test]
fn an_application_is_granted_recorded_and_started_in_this_order_and_ended_in_the_other()
-> anyhow::Result<()> {
    on_own_ground(|mut ground| async move {
        // Before there is a guard: afterwards only the agent that it knows may write there.
        let wanted = ground.install("1.0")?;
        ground.start_guard()?;
        let agent = ground.agent();
        agent.run(&wanted).await?;
        assert_eq!(
            ground.story.take(),
            [
                "record app.level_changed",
                "level fanotify",
                "record app.started",
                "grant 1.0"
            ]
        );
        eventually(|| ground.ran() == "1.0").await?;
        let [process] = ground.processes().try_into().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        assert!(
            status.contains(&format!("Uid:\t{UID}\t{UID}\t{UID}\t{UID}")),
            "{status}"
        );

        // An unlisted file beside it is nobody's to run.
        let bad = wanted.tree.join("bad");
        std::fs::set_permissions(&wanted.tree, PermissionsExt::from_mode(0o755))?;
        std::fs::write(&bad, b"#!/bin/sh\nexit 0\n")?;
        std::fs::set_permissions(&bad, PermissionsExt::from_mode(0o555))?;
        assert!(Command::new(&bad).status().is_err());

        let begun = Instant::now();
        agent.enforcing.runs.end(wanted.app(), "app-denied").await?;
        println!("from the word to the empty group: {:?}", begun.elapsed());
        assert!(ground.processes().is_empty());
        assert!(!Path::new(&format!("/proc/{process}")).exists());
        assert_eq!(
            ground.story.take(),
            ["withdraw", "record app.ended", "ended true"]
        );
        // Its files leave the book: they are nobody's any more.
        assert!(
            Command::new(wanted.tree.join("bin/sleep"))
                .arg("0")
                .status()?
                .success()
        );
        agent.hold(&[]).await?;
        assert!(
            Command::new(wanted.tree.join("bin/sleep"))
                .arg("0")
                .status()
                .is_err()
        );
        Ok(())
    })
}

#[test]
fn without_its_guard_nothing_runs_and_with_the_next_it_runs_again() -> anyhow::Result<()> {
    on_own_ground(|mut ground| async move {
        // Before there is a guard: afterwards only the agent that it knows may write there.
        let wanted = ground.install("1.0")?;
        ground.start_guard()?;
        let agent = ground.agent();
        agent.run(&wanted).await?;
        // Before that it may be a launcher still, which goes with the guard by itself.
        eventually(|| ground.ran() == "1.0").await?;
        ground.story.take();
        let begun = Instant::now();
        ground.kill_guard()?;
        eventually(|| ground.processes().is_empty()).await?;
        println!(
            "from the guard's death to the application's: {:?}",
            begun.elapsed()
        );
        // The guard's watch may have ended it before the agent hears of anything.
        eventually(|| level::word(&agent.enforcing.guard.state().borrow()).is_empty()).await?;
        eventually(|| {
            let story = ground.story.0.lock().unwrap();
            story.contains(&"withdraw".to_owned()) && story.contains(&"level ".to_owned())
        })
        .await?;
        ground.start_guard()?;
        agent.until_stage(Some(Stage::Running)).await?;
        eventually(|| ground.processes().len() == 1).await?;
        assert_eq!(
            level::word(&agent.enforcing.guard.state().borrow()),
            "fanotify"
        );
        Ok(())
    })
}

#[test]
fn an_application_runs_on_through_a_restart_of_the_agent_and_another_release_replaces_it()
-> anyhow::Result<()> {
    on_own_ground(|mut ground| async move {
        let (old, new) = (ground.install("1.0")?, ground.install("1.1")?);
        ground.start_guard()?;
        let first = ground.agent();
        first.run(&old).await?;
        eventually(|| ground.ran() == "1.0").await?;
        let before = ground.processes();
        drop(first);
        let second = ground.agent();
        second.run(&old).await?;
        assert_eq!(ground.processes(), before, "the same process");
        second.hold(&[&old, &new]).await?;
        ground.story.take();
        second
            .enforcing
            .runs
            .want([(new.app().clone(), new.clone())].into())
            .await;
        eventually(|| ground.ran() == "1.1").await?;
        assert_ne!(ground.processes(), before);
        let story = ground.story.take();
        let wanted = ["withdraw", "ended true", "grant 1.1"];
        let in_order: Vec<&String> = story
            .iter()
            .filter(|said| wanted.contains(&said.as_str()))
            .collect();
        assert_eq!(in_order, wanted, "{story:?}");
        Ok(())
    })
}
