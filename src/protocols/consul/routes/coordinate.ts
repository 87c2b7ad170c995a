// /v1/coordinate: where nodes stand in the network, as their agents measured it or somebody told it.
import { keyOf, scope } from "../../../model/record.ts";
import { answerQuery, type Manner } from "../blocking.ts";
import type { Call, Endpoint, Reply, Row } from "../call.ts";
import {
  COORDINATES,
  type Coordinate,
  coordinatesOf,
  DIMENSIONS,
  type KeptCoordinate,
  ORIGIN,
  tellCoordinate,
} from "../coordinates.ts";
import { type Decoder, decodeBody, list, number, record, text } from "../decode.ts";
import { Refusal } from "../errors.ts";
import { handOn } from "../hand-on.ts";
import { ownDatacenterOnly, readDatacenter, readOptions } from "../options.ts";

interface UpdateBody {
  readonly Datacenter?: string;
  readonly Node?: string;
  readonly Segment?: string;
  readonly Coord?: Partial<Coordinate>;
  readonly Partition?: string;
}
const updateBody: Decoder<UpdateBody> = record<UpdateBody>("CoordinateUpdateRequest", {
  Datacenter: text,
  Node: text,
  Segment: text,
  Coord: record<Partial<Coordinate>>("Coordinate", {
    Vec: list(number),
    Error: number,
    Adjustment: number,
    Height: number,
  }),
  Partition: text,
});

/** Nodes belong to partitions, not to namespaces. */
const MANNER: Manner = { tellConsistency: false, enterprise: "partition" };

const encode = ({ node, segment, coordinate }: KeptCoordinate): unknown => ({
  Node: node,
  Segment: segment,
  Coord: coordinate,
});

/** An endpoint that answers only where coordinates are not switched off. */
function enabled(endpoint: Endpoint): Endpoint {
  return (call) => {
    if (!call.config.coordinates) throw new Refusal(401, "Coordinate support disabled");
    return endpoint(call);
  };
}

function datacenters(call: Call): Reply {
  const { self, directory } = call.ground;
  const [own] = coordinatesOf(directory.view(), self.node);
  const coordinate = own?.coordinate ?? ORIGIN;
  return {
    json: [
      {
        Datacenter: self.datacenter,
        AreaID: "wan",
        Coordinates: [{ Node: `${self.node}.${self.datacenter}`, Segment: "", Coord: coordinate }],
      },
    ],
  };
}

function nodes(call: Call): Promise<Reply> {
  const { query } = call;
  const segment = query.has("segment") ? query.get("segment") : undefined;
  return answerQuery(call, MANNER, (view) => {
    const rows: unknown[] = [];
    for (const { value } of view.list("kept", keyOf.ofKind(COORDINATES))) {
      const kept = value as KeptCoordinate;
      if (view.get("node", keyOf.node(kept.node)) === undefined) continue;
      if (segment === undefined || kept.segment === segment) rows.push(encode(kept));
    }
    return { index: view.at(scope.kept(COORDINATES)), waitOn: [scope.kept(COORDINATES)], reply: { json: rows } };
  });
}

async function node(call: Call): Promise<Reply> {
  const name = call.suffix;
  const options = readOptions(call, "partition");
  const found = (): readonly KeptCoordinate[] => coordinatesOf(call.ground.directory.view(), name);
  // Nobody waits for a coordinate that is not there: as recorded, that is a bare 404.
  if (options.minIndex === 0 && options.datacenter === "" && found().length === 0) return { status: 404 };
  const segment = call.query.has("segment") ? call.query.get("segment") : undefined;
  return answerQuery(call, MANNER, (view) => {
    const rows = coordinatesOf(view, name).filter((one) => segment === undefined || one.segment === segment);
    return {
      index: view.at(scope.kept(COORDINATES)),
      waitOn: [scope.kept(COORDINATES)],
      missing: rows.length === 0,
      reply: rows.length === 0 ? { status: 404 } : { json: rows.map(encode) },
    };
  });
}

async function update(call: Call): Promise<Reply | undefined> {
  const bytes = await call.body();
  const body = decodeBody(bytes, updateBody);
  const elsewhere = call.query.get("dc") === "" ? await handOn(call, body.Datacenter, bytes) : undefined;
  if (elsewhere !== undefined) return elsewhere;
  ownDatacenterOnly(readDatacenter(call));
  const told = body.Coord ?? {};
  const { Vec = [], Adjustment = 0, Height = 0 } = told;
  const coordinate: Coordinate = { Vec, Error: told.Error ?? 0, Adjustment, Height };
  if (![...Vec, coordinate.Error, Adjustment, Height].every(Number.isFinite))
    throw new Refusal(500, "invalid coordinate");
  if (Vec.length !== DIMENSIONS) throw new Refusal(500, "incompatible coordinate");
  const { directory } = call.ground;
  const view = directory.view();
  const found = view.get("node", keyOf.node(body.Node ?? ""));
  // A coordinate of a node that is not there is dropped without a word, as Consul does.
  if (found === undefined) return undefined;
  await tellCoordinate(directory, { node: found.name, segment: body.Segment ?? "", coordinate }, call.signal);
  return undefined;
}

const GET = ["GET"] as const;
export const coordinateRows: readonly Row[] = [
  { pattern: "/v1/coordinate/datacenters", methods: GET, endpoint: enabled(datacenters) },
  { pattern: "/v1/coordinate/nodes", methods: GET, endpoint: enabled(nodes) },
  { pattern: "/v1/coordinate/node/", methods: GET, endpoint: enabled(node) },
  { pattern: "/v1/coordinate/update", methods: ["PUT"], endpoint: enabled(update) },
];
