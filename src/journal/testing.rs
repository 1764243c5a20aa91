//! For the tests of other rooms.

use std::path::Path;

/// Carries out statements on the file of a [`super::SqliteJournal`], behind its back.
pub(crate) fn damage(path: &Path, statements: &str) {
    super::sqlite::damage(path, statements);
}
