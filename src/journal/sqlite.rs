//! journal/sqlite
pub struct SqliteJournal;
