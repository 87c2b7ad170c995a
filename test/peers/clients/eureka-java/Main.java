// What Java programs do with Netflix's client: register, find others, change the status, go; ends with 0 and "ok".
import com.netflix.appinfo.*;
import com.netflix.appinfo.providers.EurekaConfigBasedInstanceInfoProvider;
import com.netflix.discovery.*;
import com.netflix.discovery.shared.Application;
import java.util.function.BooleanSupplier;

public final class Main {
  static void until(String what, BooleanSupplier holds) throws Exception {
    long end = System.currentTimeMillis() + 30_000;
    while (!holds.getAsBoolean()) {
      if (System.currentTimeMillis() > end) throw new AssertionError(what + ": not within 30 s");
      Thread.sleep(50);
    }
  }

  static final class Named extends MyDataCenterInstanceConfig {
    final String app;
    Named(String app) { this.app = app; }
    @Override public String getAppname() { return app; }
    @Override public String getInstanceId() { return app + ":1"; }
    @Override public String getHostName(boolean refresh) { return app + ".example"; }
    @Override public String getIpAddress() { return "192.0.2.20"; }
    @Override public int getNonSecurePort() { return 8080; }
    @Override public String getVirtualHostName() { return app; }
    @Override public boolean isInstanceEnabledOnit() { return true; }
    @Override public int getLeaseRenewalIntervalInSeconds() { return 1; }
  }

  static final class Config extends DefaultEurekaClientConfig {
    @Override public java.util.List<String> getEurekaServerServiceUrls(String zone) {
      return java.util.List.of(System.getenv("EUREKA_URL"));
    }
    @Override public String[] getAvailabilityZones(String region) { return new String[] {"defaultZone"}; }
    @Override public int getRegistryFetchIntervalSeconds() { return 1; }
    @Override public int getInstanceInfoReplicationIntervalSeconds() { return 1; }
    @Override public int getInitialInstanceInfoReplicationIntervalSeconds() { return 0; }
  }

  static EurekaClient client(String app) {
    EurekaInstanceConfig config = new Named(app);
    InstanceInfo info = new EurekaConfigBasedInstanceInfoProvider(config).get();
    ApplicationInfoManager manager = new ApplicationInfoManager(config, info);
    manager.setInstanceStatus(InstanceInfo.InstanceStatus.UP);
    return new DiscoveryClient(manager, new Config());
  }

  public static void main(String[] args) throws Exception {
    EurekaClient asker = client("asker");
    EurekaClient shop = client("shop");
    until("shop is found", () -> asker.getApplication("SHOP") != null && asker.getApplication("SHOP").getInstances().size() == 1);
    InstanceInfo seen = asker.getNextServerFromEureka("shop", false);
    if (seen.getPort() != 8080 || !seen.getIPAddr().equals("192.0.2.20")) throw new AssertionError("shop is " + seen);
    until("web of another dialect is found", () -> asker.getApplication("WEB") != null);
    if (!asker.getApplication("WEB").getInstances().get(0).getHostName().equals("192.0.2.1")) throw new AssertionError("web");
    shop.getApplicationInfoManager().setInstanceStatus(InstanceInfo.InstanceStatus.DOWN);
    until("shop is down", () -> {
      Application app = asker.getApplication("SHOP");
      return app != null && app.getInstancesAsIsFromEureka().get(0).getStatus() == InstanceInfo.InstanceStatus.DOWN;
    });
    shop.getApplicationInfoManager().setInstanceStatus(InstanceInfo.InstanceStatus.UP);
    until("shop is up", () -> asker.getApplication("SHOP").getInstances().size() == 1);
    shop.shutdown();
    until("shop is gone", () -> asker.getApplication("SHOP") == null || asker.getApplication("SHOP").getInstancesAsIsFromEureka().isEmpty());
    asker.shutdown();
    System.out.println("ok");
    System.exit(0);
  }
}
