//! A sign of life on a terminal where something takes longer than a second.

use std::future::Future;
use std::io::Write;
use std::time::Duration;

use edgeward_runtime::screen::Screen;

/// Before this nobody wonders.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(120);
const FRAMES: [&str; 4] = ["|", "/", "-", "\\"];

/// Waits for `work`; says `what` on standard error meanwhile, if somebody watches.
pub(super) async fn watch<T>(screen: &Screen, what: &str, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    if !screen.is_watched() {
        return work.await;
    }
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    let mut frames = FRAMES.iter().cycle();
    let done = loop {
        let frame = frames.next().unwrap_or(&"");
        say(&format!("\r{frame} {what} "));
        if let Ok(done) = tokio::time::timeout(TICK, &mut work).await {
            break done;
        }
    };
    // Back to the start of the line, and clear it.
    say("\r\u{1b}[K");
    done
}

fn say(text: &str) {
    let mut error = std::io::stderr().lock();
    let _ = write!(error, "{text}").and_then(|()| error.flush());
}
