// What a dashboard of ours is made of: Grafana's own types (its foundation SDK), as they look in JSON, and a little stricter.
// Each panel says what it shows, its options and the drawing of its fields are those of its kind, and nothing else is in it.
import type * as common from "@grafana/grafana-foundation-sdk/common";
import type * as dashboard from "@grafana/grafana-foundation-sdk/dashboard";
import type * as heatmap from "@grafana/grafana-foundation-sdk/heatmap";
import type * as prometheus from "@grafana/grafana-foundation-sdk/prometheus";
import type * as stat from "@grafana/grafana-foundation-sdk/stat";
import type * as statetimeline from "@grafana/grafana-foundation-sdk/statetimeline";
import type * as table from "@grafana/grafana-foundation-sdk/table";
import type * as tempo from "@grafana/grafana-foundation-sdk/tempo";
import type * as timeseries from "@grafana/grafana-foundation-sdk/timeseries";

/** An enum of strings is its words in JSON, and there are no methods. */
type Json<T> = 0 extends 1 & T
  ? any
  : T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends (infer Item)[]
        ? Json<Item>[]
        : { [Key in keyof T as T[Key] extends (...args: never[]) => unknown ? never : Key]: Json<T[Key]> };

type Query = Json<prometheus.Dataquery> | Json<tempo.Dataquery>;

/** A panel of one kind: what it is, what it says, what it asks, and how it is drawn. */
type Drawn<Kind extends string, Options, Custom> = Omit<
  Json<dashboard.Panel>,
  "type" | "options" | "fieldConfig" | "targets"
> & {
  type: Kind;
  title: string;
  description: string;
  gridPos: dashboard.GridPos;
  datasource: common.DataSourceRef;
  targets: Query[];
  options: Json<Options>;
  fieldConfig: Omit<Json<dashboard.FieldConfigSource>, "defaults"> & {
    defaults: Omit<Json<dashboard.FieldConfig>, "custom"> & { custom?: Json<Custom> };
  };
};

type Panel =
  | Drawn<"timeseries", timeseries.Options, timeseries.FieldConfig>
  | Drawn<"stat", stat.Options, never>
  | Drawn<"table", table.Options, table.FieldConfig>
  | Drawn<"heatmap", heatmap.Options, heatmap.FieldConfig>
  | Drawn<"state-timeline", statetimeline.Options, statetimeline.FieldConfig>;

export type Board = Omit<Json<dashboard.Dashboard>, "panels" | "uid" | "title" | "description"> & {
  uid: string;
  title: string;
  description: string;
  panels: (Json<dashboard.RowPanel> | Panel)[];
};
