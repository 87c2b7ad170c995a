// A program with pg that knows nothing of Trilith: asks PostgreSQL through a pool and by a client of its own, and prints at which port that listens.
import pg from "pg";

const options = { host: "db.service.consul", port: 5432, user: "test", database: "postgres" };
const ask = "select current_setting('port')::int as port";
const pool = new pg.Pool(options);
const pooled = await Promise.all([1, 2, 3].map(() => pool.query(ask)));
await pool.end();
const client = new pg.Client({ ...options, ssl: false });
await client.connect();
const { rows } = await client.query(ask);
await client.end();
process.stdout.write(`${JSON.stringify([...pooled.map((each) => each.rows[0].port), rows[0].port])}\n`);
