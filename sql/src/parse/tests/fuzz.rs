//! Random text never panics, and always ends: an answer or errors whose places lie in the text.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::parse;
use crate::diagnostic::render_all;
use crate::span::Source;

const SEED: u64 = 0x5eed_0003;

fn check(text: &str) {
    let Err(found) = parse(text, "fuzz.sql") else { return };
    assert!(!found.is_empty(), "{text:?}");
    let source = Source::new(text);
    for error in &found {
        let inside = error.span.is_none() || (error.span.start <= source.end() && error.span.start <= error.span.end);
        assert!(inside, "{text:?}: {error:?}");
        assert!(!error.message.is_empty() && !error.message.ends_with('.'), "{error:?}");
    }
    assert!(render_all(&found, "fuzz.sql", text).contains("error[E"));
}

#[test]
fn random_bytes() {
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    for _ in 0..8_000 {
        let length = random.random_range(0..80);
        let bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
        check(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn random_ascii() {
    let mut random = ChaCha8Rng::seed_from_u64(SEED + 1);
    let alphabet: Vec<char> = "SELECTfromab01'\"`$?;:,.()[]{}<>=!-+*/|&^%#@~\\ \n\t\r_éß日\u{0}".chars().collect();
    for _ in 0..8_000 {
        let length = random.random_range(0..60);
        let text: String = (0..length).filter_map(|_| alphabet.choose(&mut random)).collect();
        check(&text);
    }
}

/// Words of the dialect in any order.
const TOKENS: &str = "SELECT FROM WHERE GROUP BY ORDER LIMIT HAVING WITH AS OVER ( ) ( ) , , ; = + - * / < > >= . :: [ ] { } 'a' '1 day' 1 2.5 -1 \
    $1 ? a b ts user_id \"Q\" CREATE STREAM FEATURE VIEW EXTERNAL TABLE IF NOT EXISTS OR REPLACE ENTITY FOR AS OF BEFORE TIMESTAMP DATE INTERVAL \
    PRIMARY KEY WATERMARK INT VARCHAR DOUBLE DECIMAL NULL TRUE FALSE COPY TO FORMAT TOKEN parquet INSERT INTO VALUES REPROCESS LATE EVENTS RESUME PAST GAP STATUS SHOW \
    STREAMS VIEWS FEATURES DESCRIBE DROP ALTER SET ADD COLUMN EXPLAIN ANALYZE STORED LOCATION OPTIONS ASOF JOIN MATCH_CONDITION ON USING UNION ALL \
    RANGE ROWS BETWEEN AND PRECEDING CURRENT ROW UNBOUNDED WINDOW FILTER DISTINCT CASE WHEN THEN ELSE END CAST IN LIKE IS NULLS EXTRACT ARRAY \
    STRUCT LATERAL UNNEST PIVOT QUALIFY COLLATE AT TIME ZONE NOT EXISTS UPDATE MERGE DELETE TRIM SUBSTRING OVERLAY POSITION FLOOR CEIL";

/// Statements to break.
const STATEMENTS: &[&str] = &[
    "CREATE STREAM s ( a INT NOT NULL , ts TIMESTAMP , PRIMARY KEY ( a ) , WATERMARK FOR ts AS ts - INTERVAL '1 s' ) WITH ( k = 'v' , n = 1 )",
    "CREATE OR REPLACE FEATURE VIEW v ENTITY ( u ) WITH ( ttl = '1 day' ) AS SELECT sum ( a ) FILTER ( WHERE b ) OVER w AS x FROM s WINDOW w AS ( RANGE INTERVAL '1 hour' PRECEDING )",
    "SELECT a , b FROM v , w FOR ENTITY ( a , b ) IN ( ( 'x' , 1 ) , ( $1 , NULL ) ) AS OF TIMESTAMP '2024-01-01'",
    "SELECT l.a , u.* FROM l ASOF JOIN u MATCH_CONDITION ( l.ts >= u.ts ) ON l.k = u.k WHERE CASE WHEN a THEN b ELSE c END IN ( SELECT 1 )",
    "CREATE EXTERNAL TABLE t ( a INT ) STORED AS PARQUET LOCATION 'x' OPTIONS ( 'a' 'b' )",
    "COPY ( SELECT a FROM t ) TO 'x' ( FORMAT csv )",
    "COPY s FROM 'x' ( FORMAT json , TOKEN 't' )",
    "INSERT INTO s ( a , b ) VALUES ( 1 , 'x' ) , ( - 2 , NULL )",
    "ALTER STREAM s ADD COLUMN c DECIMAL ( 3 , 1 )",
    "EXPLAIN ANALYZE SELECT count ( * ) FROM ( SELECT 1 UNION ALL SELECT 2 ) AS x",
];

#[test]
fn random_words() {
    let mut random = ChaCha8Rng::seed_from_u64(SEED + 2);
    let tokens: Vec<&str> = TOKENS.split_whitespace().collect();
    for _ in 0..12_000 {
        let length = random.random_range(1..40);
        let words: Vec<&str> = (0..length).filter_map(|_| tokens.choose(&mut random).copied()).collect();
        check(&words.join(" "));
    }
}

#[test]
fn statements_with_words_changed() {
    let mut random = ChaCha8Rng::seed_from_u64(SEED + 3);
    let tokens: Vec<&str> = TOKENS.split_whitespace().collect();
    for statement in STATEMENTS {
        check(statement);
        assert!(parse(statement, "fuzz.sql").is_ok(), "{statement}");
    }
    for _ in 0..12_000 {
        let statement = STATEMENTS.choose(&mut random).expect("there are statements");
        let mut words: Vec<&str> = statement.split_whitespace().collect();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..words.len());
            match random.random_range(0..4) {
                0 => drop(words.remove(at)),
                1 => words.insert(at, tokens.choose(&mut random).expect("there are tokens")),
                2 => {
                    let other = random.random_range(0..words.len());
                    words.swap(at, other);
                }
                _ => words.truncate(at.max(1)),
            }
            if words.is_empty() {
                break;
            }
        }
        check(&words.join(if random.random() { " " } else { "\n" }));
    }
}
