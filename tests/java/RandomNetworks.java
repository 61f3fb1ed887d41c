package oracle;

import java.nio.file.*;
import org.nd4j.linalg.api.buffer.DataType;
import org.nd4j.linalg.factory.Nd4j;

/** The oracle's random networks, trained for as many steps as wanted. */
final class RandomNetworks {
    /** Arguments: seed, number of networks, steps, and the folder they are written to, a folder each. */
    public static void main(String[] a) throws Exception {
        Nd4j.setDefaultDataTypes(DataType.DOUBLE, DataType.DOUBLE);
        long seed = Long.parseLong(a[0]);
        int count = Integer.parseInt(a[1]), steps = Integer.parseInt(a[2]), written = 0;
        for (int i = 0; written < count && i < 20 * count; i++) {
            String name = "fuzz_" + seed + "_" + i;
            Path dir = Paths.get(a[3]).resolve(name);
            try {
                Models.dump(dir, name, new Fuzz(seed, i).make().fits(steps), true);
                written++;
            } catch (Throwable t) {
                Models.delete(dir); // DL4J cannot compute it
            }
        }
    }
}
