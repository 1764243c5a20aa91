//! ledger/mysql
pub struct MysqlLedger;
pub struct MysqlOptions;
