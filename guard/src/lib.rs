//! Guards an application volume: what is opened or executed there must be a file that the book lists.
//!
//! The volume is a file system of its own that holds nothing but installed applications. The kernel asks before each
//! open and each exec on it (fanotify(7)); the answer depends on the SHA-256 of the file and on nothing that whoever
//! asks can choose.
//!
//! Two processes: [`supervise`] holds the kernel's group and watches over [`watch`], which answers. As long as either
//! lives nothing is let through unanswered. [`launch`] turns itself into one application.
//!
//! With [`level::kernel`] the kernel itself holds what is read, mapped and executed to what [`watch`] admitted, whoever
//! lives.
//!
//! Order for readers: [`book`], [`court`], [`watch`], [`supervise`], [`launch`].

pub mod book;
pub mod cache;
pub mod cgroup;
pub mod control;
pub mod court;
pub mod digest;
pub mod group;
pub mod identity;
pub mod launch;
pub mod level;
pub mod rights;
pub mod supervise;
pub mod verity;
pub mod volume;
pub mod watch;
