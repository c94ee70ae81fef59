"""The statements of SQL for the database."""

# When sqlitedict cannot fetch a later row of a result, its thread dies, and its caller waits for ever. So each result
# is one row, of types that need no decoding.
CREATE = "CREATE TABLE IF NOT EXISTS policies (key TEXT PRIMARY KEY, value BLOB)"
GET = "SELECT (SELECT ifnull(CAST(value AS BLOB), x'') FROM policies WHERE key = ?)"
KNOWN = "SELECT CAST(json_group_array(key) AS BLOB) FROM policies WHERE key IN (SELECT value FROM json_each(?1))"
# ?1 is a JSON array of `Write`, ?2 the version: one statement, so that all rows are written or none.
PUT = """
    INSERT OR REPLACE INTO policies (key, value)
    SELECT new.key, new.row FROM (
        SELECT
            json_extract(value, '$[0]') AS key, json_extract(value, '$[1]') AS row,
            json_extract(value, '$[2]') AS after, json_extract(value, '$[3]') AS until
        FROM json_each(?1)
    ) AS new LEFT JOIN policies AS old ON old.key = new.key
    WHERE NOT coalesce(CASE WHEN json_valid(old.value) THEN
        json_extract(old.value, '$.version') = ?2
        AND json_extract(old.value, '$.fetched_at') > new.after AND json_extract(old.value, '$.fetched_at') <= new.until
    END, false)
"""
# ?2 is when the domain was last used. A row stays if another daemon has seen it used later.
FORGET = """
    DELETE FROM policies WHERE key = ?1 AND NOT (json_valid(value) AND json_extract(value, '$.last_used') > ?2)
"""
# ?1 is the time, ?2 the version. Of ?4 rows behind the one with the number ?3: the number of the last, and what is due.
DUE = """
    SELECT CAST(json_array(
        max(rowid), json(json_group_array(json_array(key, min(max(expires_at, 0.0), 1e300))) FILTER (WHERE is_due))
    ) AS BLOB) FROM (
        SELECT
            rowid, key,
            CASE WHEN json_valid(value) THEN coalesce(CAST(json_extract(value, '$.expires_at') AS REAL), 0.0) END
                AS expires_at,
            CASE WHEN typeof(key) = 'text' AND json_valid(value) THEN
                json_extract(value, '$.version') = ?2 AND EXISTS (
                    SELECT 1 FROM json_each(policies.value, '$.due') AS span WHERE ?1
                    BETWEEN coalesce(json_extract(span.value, '$[0]'), ?1)
                    AND coalesce(json_extract(span.value, '$[1]'), ?1)
                )
            END AS is_due
        FROM policies WHERE rowid > ?3 ORDER BY rowid LIMIT ?4
    )
"""
PAGE = """
    SELECT CAST(json_group_array(json_array(key, value)) AS BLOB) FROM (
        SELECT key, CAST(value AS TEXT) AS value FROM policies
        WHERE typeof(key) = 'text' AND key > ?1 ORDER BY key LIMIT ?2
    )
"""
# ?1 is the time, ?2 the version. Of ?4 rows behind the key ?3, in the order of their keys: each in brief
# (`cache.brief`); without a mode if it is not known.
BRIEF = """
    SELECT CAST(json_group_array(json_array(
        CASE WHEN lives THEN CASE WHEN renewal_fails THEN 1 ELSE 2 END WHEN failed THEN 0 ELSE 2 END, key,
        CASE WHEN NOT lives THEN 'expired' ELSE mode END
    )) AS BLOB) FROM (
        SELECT
            key, CASE WHEN is_known THEN json_extract(value, '$.expires_at') >= ?1 END AS lives,
            CASE WHEN is_known THEN json_extract(value, '$.renewal_fails') END AS renewal_fails,
            CASE WHEN is_known THEN json_array_length(value, '$.failed') END AS failed,
            CASE WHEN is_known THEN json_extract(value, '$.mode') END AS mode
        FROM (
            SELECT
                key, value, CASE WHEN json_valid(value) THEN json_extract(value, '$.version') = ?2 END AS is_known
            FROM policies WHERE typeof(key) = 'text' AND key > ?3 ORDER BY key LIMIT ?4
        )
    )
"""
# ?1 is the time, ?2 the version. Of ?4 rows behind the one with the number ?3: the number of the last, and counts.
COUNT = """
    SELECT CAST(json_array(
        max(rowid), count(*) FILTER (WHERE is_known), count(*) FILTER (WHERE lives AND renewal_fails),
        count(*) FILTER (WHERE lives AND renewal_fails AND urgent_at < ?1),
        min(expires_at) FILTER (WHERE lives AND renewal_fails),
        count(*) FILTER (WHERE lives AND mode = 'enforce'), count(*) FILTER (WHERE lives AND mode = 'testing'),
        count(*) FILTER (WHERE lives AND mode = 'none')
    ) AS BLOB) FROM (
        SELECT
            rowid, is_known, CASE WHEN is_known THEN json_extract(value, '$.expires_at') END AS expires_at,
            CASE WHEN is_known THEN json_extract(value, '$.expires_at') >= ?1 END AS lives,
            CASE WHEN is_known THEN json_extract(value, '$.urgent_at') END AS urgent_at,
            CASE WHEN is_known THEN json_extract(value, '$.renewal_fails') END AS renewal_fails,
            CASE WHEN is_known THEN json_extract(value, '$.mode') END AS mode
        FROM (
            SELECT
                rowid, value, CASE WHEN json_valid(value) THEN json_extract(value, '$.version') = ?2 END AS is_known
            FROM policies WHERE rowid > ?3 ORDER BY rowid LIMIT ?4
        )
    )
"""
OCTETS = """
    SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size
"""
# ?1 is the time, ?2 the version; domains that were last used by ?3 are unused. Of ?5 rows behind the one with the
# number ?4: the number of the last, and of each that may be deleted its number, its octets and its rank. That is the
# day of its last use, and a million years later if it protects. Rows of another version may be anything.
RANKS = """
    SELECT CAST(json_array(
        max(rowid), json(json_group_array(json_array(rowid, octets, rank)) FILTER (WHERE rank IS NOT NULL))
    ) AS BLOB) FROM (
        SELECT rowid, length(value) AS octets, CASE WHEN json_valid(value) THEN CASE
            WHEN json_extract(value, '$.version') IS NOT ?2 THEN NULL
            WHEN json_extract(value, '$.mode') IS NOT 'enforce' OR json_extract(value, '$.expires_at') < ?1
                THEN CAST(json_extract(value, '$.last_used') / 86400 AS INTEGER)
            WHEN json_extract(value, '$.last_used') <= ?3
                THEN CAST(json_extract(value, '$.last_used') / 86400 + 365e6 AS INTEGER)
        END END AS rank
        FROM policies WHERE rowid > ?4 ORDER BY rowid LIMIT ?5
    )
"""
DELETE = "DELETE FROM policies WHERE rowid IN (SELECT value FROM json_each(?1))"
ALL = "SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM policies ORDER BY key"
NEXT = "SELECT rowid, CAST(key AS BLOB), CAST(value AS BLOB) FROM policies WHERE rowid > ? ORDER BY rowid LIMIT 1"
BEFORE = (
    "SELECT rowid, CAST(key AS BLOB), CAST(value AS BLOB) FROM policies WHERE rowid < ? ORDER BY rowid DESC LIMIT 1"
)
