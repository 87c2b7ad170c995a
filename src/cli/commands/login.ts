// `trilith login`, see acl.ts.
import { login } from "./acl.ts";

export const command: typeof login = login;
